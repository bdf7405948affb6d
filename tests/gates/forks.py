"""Services that start in an instant, to be killed: one process has loaded all, and forks.

    python -m tests.gates.forks STORE DATA DATABASE SETTINGS

It listens, says on which port, and answers each line on its standard input, a command of kizu's or
none, with the process that carries it out, or serves, from then on.
"""

import json
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import uvicorn

from models.bundle import Bundle
from models.command import run
from service.app import create_app
from service.cli import app as commands
from service.connection import Connection
from service.engine import Engine, FakeEngine
from service.logs import configure_logging
from service.settings import Settings


def main(open_engine: Callable[[Bundle], Engine] = lambda bundle: FakeEngine()) -> None:
    """Fork for each line of the standard input."""
    configure_logging()  # or what nobody foresaw is drawn at length, for seconds
    store, data, database, more = sys.argv[1:5]
    settings = Settings(store=Path(store), data=Path(data), database=database, **json.loads(more))
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        print(listener.getsockname()[1], flush=True)
        for line in sys.stdin:
            child = os.fork()
            if child == 0:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what it logs is no answer
                _work(json.loads(line), settings, listener, open_engine)
            print(child, flush=True)
            _, status = os.waitpid(child, 0)
            print("gone", os.waitstatus_to_exitcode(status), flush=True)


def _work(
    command: list[str],
    settings: Settings,
    listener: socket.socket,
    open_engine: Callable[[Bundle], Engine],
) -> NoReturn:
    status = 0
    try:
        if command:
            run(lambda: commands(command))
        else:
            app = create_app(settings, open_engine=open_engine)
            config = uvicorn.Config(
                app, http=Connection, access_log=False, log_level="critical", ws="none"
            )
            uvicorn.Server(config).run([listener])
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    os._exit(status)


if __name__ == "__main__":
    main()
