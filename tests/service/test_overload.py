"""What a line sees of a service that has more to do than it can."""

import http.client
import threading

from service.app import create_app
from service.engine import FakeEngine
from service.settings import Settings
from tests.listening import listening

JPEG = {"Content-Type": "image/jpeg"}


def test_an_image_that_would_be_refused_is_refused_unread(store, tmp_path, good_part):
    free, entered = threading.Event(), threading.Event()

    def wait(images):
        entered.set()
        free.wait(30)

    settings = Settings(store=store, data=tmp_path / "data", max_queue=1, max_batch=1)
    app = create_app(settings, open_engine=lambda bundle: FakeEngine(wait))
    with listening(app) as (host, port):

        def post():
            line = http.client.HTTPConnection(host, port)
            line.request("POST", "/inspect", good_part, JPEG)
            assert line.getresponse().status == 200
            line.close()

        def metrics():
            line.request("GET", "/metrics")
            return line.getresponse().read().decode()

        line = http.client.HTTPConnection(host, port, timeout=30)
        busy = [threading.Thread(target=post) for _ in range(2)]
        busy[0].start()
        assert entered.wait(30)
        busy[1].start()
        while "kizu_queue_images 1.0" not in metrics():
            pass
        line.putrequest("POST", "/inspect")
        line.putheader("Content-Type", "image/jpeg")
        line.putheader("Content-Length", str(len(good_part)))
        line.endheaders()  # and not a byte of the image
        refused = line.getresponse()
        assert (refused.status, refused.getheader("retry-after")) == (503, "1")
        assert b'"error"' in refused.read()
        free.set()
        for thread in busy:
            thread.join(30)
        # The same connection, once the image that nobody wanted has passed, is as good as before.
        line.send(good_part)
        line.request("POST", "/inspect", good_part, JPEG)
        assert line.getresponse().status == 200
        line.close()
