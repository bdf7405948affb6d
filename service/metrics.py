"""Prometheus collectors, made once per application."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from service.cameras import Cameras
from service.recent_scores import QUANTILES, RecentScores

_MILLISECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics:
    """The collectors and the registry that they stand in."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.cameras = Cameras()
        self.registry.register(_CameraCollector(self.cameras))
        self.scores = RecentScores()
        self.registry.register(_ScoreCollector(self.scores))
        self.inspections = Counter(
            "kizu_inspections_total", "Inspections by verdict.", ("recipe", "verdict"),
            registry=self.registry,
        )  # fmt: skip
        self.problems = Counter(
            "kizu_problems_total",
            "Requests, and images of batches, that were answered with a problem.",
            ("type",),
            registry=self.registry,
        )
        self.shadow = Counter(
            "kizu_shadow_images_total", "What candidates said, beside their champions.",
            ("recipe", "outcome"), registry=self.registry,
        )  # fmt: skip
        self.drift = Gauge(
            "kizu_drift_outside_ratio",
            "Share of a camera's last images outside of what the training saw.",
            ("recipe", "camera", "measure"),
            registry=self.registry,
        )
        self.feedback = Counter(
            "kizu_feedback_total", "Labels by verdict.", ("verdict",), registry=self.registry
        )
        self.steps = Histogram(
            "kizu_step_seconds", "Time of an inspection by step.", ("step",),
            buckets=_MILLISECONDS, registry=self.registry,
        )  # fmt: skip
        self.batch = Histogram(
            "kizu_batch_images",
            "Images in one run of the model, by why it was not larger.",
            ("reason",),
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )
        self.queue = Gauge(
            "kizu_queue_images", "Images waiting for the device.", registry=self.registry
        )
        self.queue_age = Gauge(
            "kizu_queue_age_seconds", "How long the oldest image has been waiting.",
            registry=self.registry,
        )  # fmt: skip
        self.removed = Counter(
            "kizu_removed_total", "Inspections whose files were removed, and files of none.",
            ("reason",), registry=self.registry,
        )  # fmt: skip
        self.spooled = Gauge(
            "kizu_spooled_results", "Results that wait on the disk while the database is away.",
            registry=self.registry,
        )  # fmt: skip
        self.spooled_files = Gauge(
            "kizu_spooled_files", "Files that wait on the disk while the object store is away.",
            registry=self.registry,
        )  # fmt: skip
        self.unstored = Counter(
            "kizu_unstored_total", "Results that were answered while the disk was full, not kept.",
            registry=self.registry,
        )  # fmt: skip
        self.models = Gauge(
            "kizu_models_loaded_bytes", "Size of the files of the models that are loaded.",
            registry=self.registry,
        )  # fmt: skip
        self.bundle = Gauge(
            "kizu_bundle_version", "The version that decides.", ("recipe", "device"),
            registry=self.registry,
        )  # fmt: skip


class _CameraCollector:
    def __init__(self, cameras: Cameras) -> None:
        self._cameras = cameras

    def collect(self) -> Iterable[Metric]:
        images = CounterMetricFamily(
            "kizu_camera_images", "Images by outcome.", labels=("camera", "outcome")
        )
        seconds = GaugeMetricFamily(
            "kizu_camera_seconds", "From arrival to answer: the min, mean and max since the start.",
            labels=("camera", "statistic"),
        )  # fmt: skip
        for camera, counts in self._cameras.counts.items():
            for outcome, number in counts.outcomes.items():
                images.add_metric((camera, outcome), number)
            for statistic, value in (
                ("min", counts.least_s), ("mean", counts.mean_s), ("max", counts.most_s)
            ):  # fmt: skip
                seconds.add_metric((camera, statistic), value)
        return images, seconds


class _ScoreCollector:
    def __init__(self, scores: RecentScores) -> None:
        self._scores = scores

    def collect(self) -> Iterable[Metric]:
        score = GaugeMetricFamily(
            "kizu_score", "Quantiles of the last 1,000 raw scores.", labels=("recipe", "quantile")
        )
        for recipe, values in self._scores.quantiles.items():
            for quantile, value in zip(QUANTILES, values, strict=True):
                score.add_metric((recipe, str(quantile)), value)
        return (score,)
