"""Services that start in an instant, to be killed: one process has loaded all, and forks.

    python -m tests.gates.forks STORE DATA DATABASE

It listens, says on which port, and answers each line on its standard input with the process that
serves from then on.
"""

import os
import socket
import sys
from pathlib import Path

import uvicorn

from service.app import create_app
from service.connection import Connection
from service.engine import FakeEngine
from service.settings import Settings


def main() -> None:
    store, data, database = sys.argv[1:4]
    settings = Settings(store=Path(store), data=Path(data), database=database)
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        print(listener.getsockname()[1], flush=True)
        for _ in sys.stdin:
            child = os.fork()
            if child == 0:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what it logs is no answer
                app = create_app(settings, open_engine=lambda bundle: FakeEngine())
                config = uvicorn.Config(
                    app, http=Connection, access_log=False, log_level="critical", ws="none"
                )
                uvicorn.Server(config).run([listener])
                os._exit(0)
            print(child, flush=True)
            os.waitpid(child, 0)
            print("gone", flush=True)


if __name__ == "__main__":
    main()
