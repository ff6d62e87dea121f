package lab

// TicksLake is the form of a lake file with one table that a topic of Kafka feeds. It takes the topic, the broker, further keys
// of the kafka block (", key: value"), and lines with further keys of the source.
const TicksLake = `version: 1
storage: file:./data
tables:
  ticks:
    columns: {id: {type: STRING, not_null: true}, price: "DECIMAL(18,4)", at: TIMESTAMP}
    key: [id]
    sequence: [at]
    expect: [{name: price_positive, check: "price > 0", on_fail: quarantine}]
sources:
  live:
    table: ticks
    kind: kafka
    topic: %s
    kafka: {brokers: [%s]%s}
    fields: {id: id, price: p, at: to_event_time(T)}
    filter: "id <> 'none'"
%s
stream: {trigger: 100ms}
`
