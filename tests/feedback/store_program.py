"""What tests do with a store in another process, for the fixture `warm`: `store_program.py WHAT URL …`.

write URL          append an event for every number that is read, by eight threads; print it when it is acknowledged
work URL NAME      answer everything that is given out
copy URL OTHER     copy into another store
full URL           append until the files may not grow, then let them
migrate URL N      open the store with a further version of its tables, and be killed before its N-th change
"""

from __future__ import annotations

import os
import queue
import resource
import signal
import sys
import threading

import hookline
from hookline import Candidate, Comparison, Event, ServiceError

CANDIDATES = (Candidate(text="one"), Candidate(text="two"))
FURTHER = (
    "ALTER TABLE items ADD COLUMN note TEXT",
    "CREATE TABLE further (x INTEGER)",
    "UPDATE items SET note = 'new'",
    "CREATE INDEX notes ON items (note)",
)


CHANGES = ("ALTER", "CREATE", "UPDATE", "INSERT")


def numbered(number: int) -> Event:
    return Event(
        prompt=f"question {number}", candidates=CANDIDATES, answer=Comparison(better=0), annotator=f"a{number % 7}",
        id=str(number), extra={"text": "x" * (number % 500)},
    )  # fmt: skip


def write(url: str) -> None:
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    store = hookline.store(url)

    def append() -> None:
        while line := waiting.get():
            store.append([numbered(int(line))])
            os.write(1, f"{line}\n".encode())

    threads = [threading.Thread(target=append) for _ in range(8)]
    for thread in threads:
        thread.start()
    for line in sys.stdin:
        waiting.put(line.strip())
    for _ in threads:
        waiting.put("")
    for thread in threads:
        thread.join()
    store.close()


def work(url: str, name: str) -> None:
    with hookline.store(url) as store:
        while (item := store.lease(name)) is not None:
            store.append([item.event(Comparison(better=0), name, id=f"{name}/{item.id}")])
            print(item.id)


def copy(url: str, other: str) -> None:
    with hookline.store(url, create=False) as store, hookline.store(other) as target:
        print(store.copy_to(target), flush=True)


def full(url: str) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with hookline.store(url) as store:
        before = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
        done = 0
        try:
            while done < 10_000:
                store.append([numbered(done)])
                done += 1
        except ServiceError as err:
            print(err)
        for _ in range(3):
            try:
                store.append([numbered(done)])
                print("acknowledged on a full disk")
            except ServiceError:
                pass
        print(len({event.id for event in store.events()}) == done, "readable")
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        store.append([numbered(done), numbered(done + 1)])
        print(store.verify().counts.events == done + 2, "recovered", done)


def migrate(url: str, at: str) -> None:
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    from hookline_plugins.stores import sql

    sql.MIGRATIONS = (*sql.MIGRATIONS, FURTHER)
    count = 0

    def killed(connection: object, cursor: object, statement: str, *_: object) -> None:
        nonlocal count
        count += statement.split()[0] in CHANGES
        if count == int(at):
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", killed)
    with hookline.store(url) as store:
        print(store.verify().counts.items)


if __name__ == "__main__":
    {"write": write, "work": work, "copy": copy, "full": full, "migrate": migrate}[sys.argv[1]](*sys.argv[2:])
