"""What tests of the switch stand on: a card whose rings another process reads at the same time."""
import mmap
import multiprocessing

from frames import AVAILABLE, RECEIVE, RING_SPAN, Card


def publish_for_ever(memory, started):
    card = object.__new__(Card)
    card.words = memoryview(memory).cast("H")
    started.set()
    while True:
        for count in (0x01FF, 0x0200):
            card.given = [count, 0]
            card.publish(RECEIVE)


def test_a_card_publishes_a_count_in_one_store():
    """Whoever reads a count that was never published takes the ring for broken. Both bytes change from one to the other."""
    memory = mmap.mmap(-1, RING_SPAN)
    started = multiprocessing.Event()
    writer = multiprocessing.get_context("fork").Process(target=publish_for_ever, args=(memory, started), daemon=True)
    with memoryview(memory) as all_bytes, all_bytes.cast("H") as words:
        at = (AVAILABLE + 2) // 2
        words[at] = 0x0200
        writer.start()
        try:
            assert started.wait(60)
            seen = {words[at] for _ in range(1_000_000)}
        finally:
            writer.kill()
            writer.join()
        assert seen <= {0x01FF, 0x0200}, f"{sorted(map(hex, seen))}"
