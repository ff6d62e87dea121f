"""Publishes Binance's trades to Kafka: the messages of `cauce produce binance`, as docs/topic.md has them.

    pip install websockets confluent-kafka
    python binance.py --brokers 127.0.0.1:9092 --topic crypto_trades --streams btcusdt@trade,ethusdt@trade

It waits for brokers and exchange as long as it takes, but keeps nothing on disk: a kill loses what waits for its acknowledgement.
"""
import argparse
import asyncio
import json
import signal
import sys

from confluent_kafka import Producer
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


def message(frame):
    """Returns key, message id and value of a frame's trade; None for a frame that has none."""
    event = json.loads(frame)
    event = event.get("data", event)
    names = {"trade": ("trade", "t"), "aggTrade": ("agg", "a")}
    if event.get("e") not in names:
        return None
    name, number = names[event["e"]]
    market = "" if "M" in event else "um-"  # only spot events say whether the trade was the best match
    value = json.dumps(event, separators=(",", ":"), ensure_ascii=False)
    return event["s"], f"{market}{name}-{event['s']}-{event[number]}", value


async def publish(frames, topic, producer, delivered):
    async for frame in frames:
        try:
            trade = message(frame)
        except (ValueError, AttributeError, KeyError) as err:
            print(f"no event: {err!r}: {frame[:200]!r}", file=sys.stderr)
            continue
        while trade:
            key, name, value = trade
            try:
                producer.produce(topic, value, key, headers={"message_id": name}, on_delivery=delivered)
                break
            except BufferError:  # the queue is full
                producer.poll(0.1)
        producer.poll(0)


async def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--url", default="wss://data-stream.binance.vision")
    flags.add_argument("--streams", required=True, help="such as btcusdt@trade,btcusdt@aggTrade")
    flags.add_argument("--brokers", required=True)
    flags.add_argument("--topic", required=True)
    flags.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of librdkafka, such as sasl.username=producer")
    args = flags.parse_args()
    producer = Producer({
        "bootstrap.servers": args.brokers, "acks": "all", "enable.idempotence": True, "message.timeout.ms": 0,
        "partitioner": "murmur2_random", "linger.ms": 5, **dict(s.split("=", 1) for s in args.set),
    })
    work, refused = asyncio.current_task(), []

    def delivered(err, _):
        if err:
            refused.append(f"{args.topic}: {err}")
            work.cancel()

    for stop in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(stop, work.cancel)
    try:
        async for socket in connect(f"{args.url}/stream?streams={args.streams.replace(',', '/')}"):  # again after each end; pings are answered
            try:
                await publish(socket, args.topic, producer, delivered)
            except ConnectionClosed as err:
                print(f"connection ended: {err}", file=sys.stderr)
    except asyncio.CancelledError:
        pass
    left = producer.flush(10)
    return (refused or [f"{left} messages are not acknowledged" if left else 0])[0]


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
