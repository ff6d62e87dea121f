"""Reads a topic of trades as a consumer group of its own and prints a message a line. Told to stop (SIGTERM), it goes on until
the end of every partition, and commits.

    python consume.py BROKERS TOPIC GROUP
"""
import json
import signal
import sys

from confluent_kafka import Consumer, KafkaException

brokers, topic, group = sys.argv[1:]
consumer = Consumer({"bootstrap.servers": brokers, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False})
consumer.subscribe([topic])
stopping = []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))


def at_the_end():
    """A group that has not been formed yet has no partitions, and is not at their end."""
    places = consumer.position(consumer.assignment())
    return places and all(max(p.offset, 0) >= consumer.get_watermark_offsets(p)[1] for p in places)


while True:
    m = consumer.poll(0.5)
    if m is None:
        if stopping and at_the_end():
            break
        continue
    if m.error():
        raise KafkaException(m.error())
    name = dict(m.headers())["message_id"].decode()
    if name.startswith("malformed-"):  # no event: docs/topic.md
        continue
    print(json.dumps({"ID": name, "Key": m.key().decode(), "Partition": m.partition(), "Value": m.value().decode()}))
consumer.commit(asynchronous=False)
consumer.close()
