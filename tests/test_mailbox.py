from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from search.running.mailbox import Mailbox

FIRST, SECOND = {"number": 0}, {"number": 1}


async def waits(call: Awaitable[Any]) -> asyncio.Task[Any]:
    """The call as a task, which must not be done yet."""
    task = asyncio.ensure_future(call)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    return task


def test_every_worker_gets_each_assignment_once() -> None:
    async def story() -> None:
        mailbox = Mailbox()
        early = await waits(mailbox.next_assignment(0))
        await mailbox.assign(FIRST)
        assert await early == await mailbox.next_assignment(0) == (1, FIRST)
        again = await waits(mailbox.next_assignment(1))
        await mailbox.assign(SECOND)
        assert await again == (2, SECOND)

    asyncio.run(story())


def test_workers_go_on_together_when_a_step_is_granted() -> None:
    async def story() -> None:
        mailbox = Mailbox()
        await mailbox.assign(FIRST)
        one, two = await waits(mailbox.may_go_on(1, 1)), await waits(mailbox.may_go_on(1, 1))
        await mailbox.grant(1)
        assert (await one, await two, await mailbox.may_go_on(1, 1)) == (True, True, True)
        ahead = await waits(mailbox.may_go_on(1, 2))
        await mailbox.stop(1)
        assert not await ahead
        assert await mailbox.may_go_on(1, 1), "who asks late of a step that was granted gets the answer of the others"

    asyncio.run(story())


def test_messages_come_in_order_and_those_of_an_earlier_turn_not_at_all() -> None:
    async def story() -> None:
        mailbox = Mailbox()
        await mailbox.assign(FIRST)
        taken = await waits(mailbox.take())
        await mailbox.post(1, {"epoch": 1})
        await mailbox.post(1, None)
        assert (await taken, await mailbox.take()) == ({"epoch": 1}, None)
        await mailbox.post(1, {"epoch": 2})
        await mailbox.assign(SECOND)
        await mailbox.post(1, {"epoch": 3})
        await mailbox.post(2, {"epoch": 1})
        assert await mailbox.take() == {"epoch": 1}
        await waits(mailbox.take())

    asyncio.run(story())


def test_a_turn_that_has_passed_is_stopped() -> None:
    async def story() -> None:
        mailbox = Mailbox()
        await mailbox.assign(FIRST)
        late = await waits(mailbox.may_go_on(1, 1))
        assert await mailbox.assign(SECOND) == 2
        await mailbox.stop(1)
        await mailbox.grant(2)
        assert not await late
        assert await mailbox.may_go_on(2, 1), "a late word about the turn before counts for nothing"
        assert not await mailbox.may_go_on(1, 1)

    asyncio.run(story())


def test_the_slot_waits_until_all_workers_have_come() -> None:
    async def story() -> None:
        mailbox = Mailbox()
        ready = await waits(mailbox.wait_for(2))
        one = await waits(mailbox.next_assignment(0))
        await waits(mailbox.wait_for(2))
        two = await waits(mailbox.next_assignment(0))
        await ready
        await mailbox.assign(FIRST)
        assert await one == await two

    asyncio.run(story())
