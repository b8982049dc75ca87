"""Whose work is done next."""

import threading
import time

import pytest

from emx_shared.fair_threads import FairThreads


def test_a_newcomer_waits_for_a_turn_and_not_for_all_that_came_before() -> None:
    done: list[str] = []
    begun, go_on = threading.Event(), threading.Event()
    threads = FairThreads(1, "test", per_owner=1)

    def first() -> None:
        begun.set()
        go_on.wait(10)

    work = [threads.submit("busy", first)]
    assert begun.wait(10)
    work += [threads.submit("busy", lambda n=n: done.append(f"busy {n}")) for n in range(100)]
    work += [threads.submit("newcomer", lambda: done.append("newcomer"))]
    go_on.set()
    for each in work:
        each.result(10)
    assert done.index("newcomer") <= 1
    assert [name for name in done if name != "newcomer"] == [f"busy {n}" for n in range(100)]
    threads.close()


@pytest.mark.parametrize(("per_owner", "per_group", "most"), [(3, 2, 2), (3, None, 3), (1, 1, 1)])
def test_no_group_and_no_owner_takes_all_threads(per_owner: int, per_group: int | None, most: int) -> None:
    threads = FairThreads(4, "test", per_owner, per_group)
    lock, running, seen = threading.Lock(), 0, 0

    def work() -> None:
        nonlocal running, seen
        with lock:
            running += 1
            seen = max(seen, running)
        time.sleep(0.02)
        with lock:
            running -= 1

    for each in [threads.submit("owner", work, "group") for _ in range(20)]:
        each.result(10)
    assert seen == most
    threads.close()


def test_groups_share_their_owners_threads() -> None:
    threads = FairThreads(4, "test", per_owner=2, per_group=1)
    hold, others = threading.Event(), []
    held = [threads.submit("owner", lambda: hold.wait(10), group) for group in ("a", "b", "c")]
    threads.submit("another", lambda: others.append(1), "a").result(10)
    assert others == [1] and sum(each.running() for each in held) == 2
    hold.set()
    assert all(each.result(10) for each in held)
    threads.close()


def test_what_is_taken_back_is_never_done_and_what_fails_says_why() -> None:
    threads = FairThreads(1, "test", per_owner=1)
    begun, hold = threading.Event(), threading.Event()

    def first() -> None:
        begun.set()
        hold.wait(10)

    running = threads.submit("owner", first)
    assert begun.wait(10)
    taken_back, failing = threads.submit("owner", lambda: 1), threads.submit("owner", lambda: 1 // 0)
    assert taken_back.cancel()
    hold.set()
    running.result(10)
    with pytest.raises(ZeroDivisionError):
        failing.result(10)
    threads.close()
    with pytest.raises(RuntimeError):
        threads.submit("owner", lambda: 1)
