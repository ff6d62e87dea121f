package pipeline

import (
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kafka says how a topic of Apache Kafka is reached and read.
type Kafka struct {
	Brokers []string // host:port
	SASL    SASL     // of the streaming job
	// Producer are the credentials of `cauce produce`, whose role may write the topic; zero: those of SASL.
	Producer SASL
	// Admin are the credentials of `cauce topics` and `cauce doctor`, whose role may create the topic and read its
	// configuration; zero: those of Producer.
	Admin SASL
	TLS   KafkaTLS
	// Start is StartEarliest, StartLatest, StartTime with the first message at or after StartTime, or StartOffsets with the
	// offsets of StartOffsets; partitions that these do not name begin with the earliest message. It counts only while the
	// table has nothing of the topic.
	Start        string
	StartTime    time.Time
	StartOffsets map[int32]int64 // the first offset to read, by partition
	// Assign are the only partitions that the source reads; empty: all, those that are added later included.
	Assign []int32
	Group  string // consumer group under which committed offsets are published; "": none
	// Registry says where the schemas of messages are; nil: messages are JSON.
	Registry *Registry
	// Tombstones says how messages without value delete rows; nil: they go to quarantine.
	Tombstones *Tombstones
	// Isolation is IsolationCommitted or IsolationUncommitted.
	Isolation  string
	Partitions int // of `cauce topics create`; 0: the broker's default
	Retention  time.Duration
	// LongestStop is how long the stream may stand still by plan: `cauce doctor` warns of a topic that forgets sooner.
	LongestStop time.Duration
}

// defaultLongestStop covers a weekend on which nobody starts the stream again.
const defaultLongestStop = 72 * time.Hour

// SASL are credentials; the zero value is none.
type SASL struct{ Mechanism, User, Password string }

// Registry is a schema registry of Confluent's protocol.
type Registry struct {
	URL            string
	User, Password string // "": none
	CAFile         string // PEM certificates to trust; "": those of the system
}

// KafkaTLS says how the connection to the brokers is encrypted.
type KafkaTLS struct {
	Enabled                               bool
	CAFile, CertFile, KeyFile, ServerName string
}

// What Kafka.Start and Kafka.Isolation may be.
const (
	StartEarliest        = "earliest"
	StartLatest          = "latest"
	StartTime            = "time"
	StartOffsets         = "offsets"
	IsolationCommitted   = "read_committed"
	IsolationUncommitted = "read_uncommitted"
)

func saslShape(doc string) *shape {
	return &shape{kind: kindObject, doc: doc, example: `{mechanism: SCRAM-SHA-512, user: stream, password: "${env:KAFKA_PASSWORD}"}`, keys: []keyShape{
		{"mechanism", choice("How to authenticate.", "SCRAM-SHA-512", "SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"), false},
		{"user", text("Name of the user.", "stream"), true},
		{"password", text("Its password; take it from the environment or a file.", `"${env:KAFKA_PASSWORD}"`), true},
	}}
}

var kafkaShape = &shape{
	kind: kindObject, example: "{brokers: [localhost:9092]}",
	doc: "How the topic of a source of kind kafka is reached and read.",
	keys: []keyShape{
		{"brokers", names("Addresses of some of the cluster's brokers.", "[localhost:9092]"), true},
		{"sasl", saslShape("Credentials of the streaming job, which may read the topic."), false},
		{"producer", saslShape("Credentials of `cauce produce`, which may write the topic. Default: those of sasl."), false},
		{"admin", saslShape("Credentials of `cauce topics` and `cauce doctor`, which may create the topic and read its configuration. Default: those of producer."), false},
		{"tls", &shape{kind: kindObject, doc: "Encrypt the connection; {} trusts the system's certificates.", example: "{ca: kafka-ca.pem}", nullable: true, keys: []keyShape{
			{"ca", text("PEM file of the certificates to trust, relative to the lake file.", "kafka-ca.pem"), false},
			{"cert", text("PEM file of the client's own certificate.", "client.pem"), false},
			{"key", text("PEM file of its key.", "client-key.pem"), false},
			{"server_name", text("Name that the broker's certificate must have. Default: the broker's host.", "kafka.example.com"), false},
		}}, false},
		{"start", &shape{kind: kindObject, example: "earliest, latest, 2024-08-20T00:00:00Z or {offsets: {0: 1200, 1: 0}}",
			doc: "Where reading begins while the table has nothing of the topic: earliest (the default), latest, the first message at or after a time, or an offset of each partition. Afterwards the table's own progress alone counts.",
			keys: []keyShape{
				{"at", text("earliest, latest, or a time.", "earliest"), false},
				{"offsets", &shape{kind: kindDict, elem: &shape{kind: kindInt, max: 1<<63 - 1}, example: "{0: 1200, 1: 0}", doc: "The first offset to read, by partition; a partition that is not named begins with its earliest message."}, false},
			}, short: text("", "earliest"), shortKey: "at"}, false},
		{"assign", &shape{kind: kindList, elem: &shape{kind: kindInt, max: 1<<31 - 1}, example: "[0, 1]", doc: "The only partitions that this source reads, so that several sources can share a topic. Default: all, those included that the topic is given later."}, false},
		{"registry", &shape{kind: kindObject, example: "{url: \"http://localhost:8081\"}", doc: "Schema registry of Confluent's protocol. Each message, and key of a tombstone, then begins with the id of its schema, which is an Avro or a JSON one; one that begins with '{' is JSON as it is.", keys: []keyShape{
			{"url", text("Address of the registry.", "http://localhost:8081"), true},
			{"user", text("Name of the user.", "lake"), false},
			{"password", text("Its password; take it from the environment or a file.", `"${env:REGISTRY_PASSWORD}"`), false},
			{"ca", text("PEM file of the certificates to trust, relative to the lake file.", "registry-ca.pem"), false},
		}}, false},
		{"tombstones", &shape{kind: kindObject, example: "{key: event_id, time: T}", nullable: true, doc: "Makes messages without value delete the row with their key; {} takes a key that is a JSON object for the record. Default: such messages go to quarantine.", keys: []keyShape{
			{"key", text("Raw field that the message's key becomes, as text. Default: the key is a JSON object, and its members are the raw fields.", "event_id"), false},
			{"time", text("Raw field that the message's time becomes, in ms since 1970. A deletion needs a value for the table's sequence columns, else it is older than every row.", "T"), false},
		}}, false},
		{"group", text("Consumer group under which the committed offsets are published, for lag monitors only. Default: none.", "cauce-live"), false},
		{"isolation", choice("Whether records of open and aborted transactions are left out.", IsolationCommitted, IsolationCommitted, IsolationUncommitted), false},
		{"partitions", &shape{kind: kindInt, min: 1, max: 100_000, doc: "Partitions that `cauce topics create` gives the topic. Default: the broker's.", example: "6"}, false},
		{"retention", &shape{kind: kindDuration, min: 1, doc: "How long the broker keeps messages, for `cauce topics create`. Default: the broker's. Make it longer than the longest stop of the stream.", example: "7d"}, false},
		{"longest_stop", &shape{kind: kindDuration, min: 1, doc: "The longest time that the stream may stand still by plan; `cauce doctor` warns when the topic keeps messages for less.", def: "3d", example: "7d"}, false},
	},
}

func (b *builder) kafka(v *value) *Kafka {
	k := &Kafka{
		Brokers: v.get("brokers").strs(), Group: v.get("group").str(""), Start: StartEarliest,
		Isolation: v.get("isolation").str(IsolationCommitted), Partitions: int(v.get("partitions").int(0)),
	}
	if r := v.get("retention"); r != nil {
		k.Retention = time.Duration(r.num)
	}
	k.LongestStop = defaultLongestStop
	if r := v.get("longest_stop"); r != nil {
		k.LongestStop = time.Duration(r.num)
	}
	if l := v.get("brokers"); l != nil {
		if len(k.Brokers) == 0 {
			b.r.errorf(l.at, "write it like [localhost:9092]", "kafka.brokers is empty")
		}
		for _, x := range l.items {
			host, port, err := net.SplitHostPort(x.text)
			if n, bad := strconv.ParseUint(port, 10, 16); err != nil || host == "" || bad != nil || n == 0 {
				b.r.errorf(x.at, "it must be host:port, such as localhost:9092", "kafka.brokers: %s is no address", strconv.Quote(clip(x.shown)))
			}
		}
	}
	sasl := func(name string) SASL {
		s := v.get(name)
		if s == nil {
			return SASL{}
		}
		return SASL{Mechanism: s.get("mechanism").str("SCRAM-SHA-512"), User: s.get("user").str(""), Password: s.get("password").str("")}
	}
	k.SASL, k.Producer = sasl("sasl"), sasl("producer")
	if k.Producer == (SASL{}) {
		k.Producer = k.SASL
	}
	if k.Admin = sasl("admin"); k.Admin == (SASL{}) {
		k.Admin = k.Producer
	}
	if slices.ContainsFunc(v.keys, func(e entry) bool { return e.name == "tls" }) {
		t := v.get("tls")
		k.TLS = KafkaTLS{
			Enabled: true, CAFile: b.besideLake(t.get("ca"), "kafka.tls.ca"), CertFile: b.besideLake(t.get("cert"), "kafka.tls.cert"),
			KeyFile: b.besideLake(t.get("key"), "kafka.tls.key"), ServerName: t.get("server_name").str(""),
		}
		if (k.TLS.CertFile == "") != (k.TLS.KeyFile == "") {
			b.r.errorf(t.at, "", "kafka.tls: a client's certificate needs both cert and key")
		}
	}
	b.kafkaStart(k, v.get("start"))
	for _, x := range v.get("assign").list() {
		p := int32(x.num) //nolint:gosec // bounded by the shape
		if slices.Contains(k.Assign, p) {
			b.r.errorf(x.at, "", "kafka.assign: partition %d is given twice", p)
		}
		k.Assign = append(k.Assign, p)
	}
	if a := v.get("assign"); a != nil && len(k.Assign) == 0 {
		b.r.errorf(a.at, "leave it out, to read all partitions", "kafka.assign is empty")
	}
	if g := v.get("registry"); g != nil {
		k.Registry = &Registry{URL: g.get("url").str(""), User: g.get("user").str(""), Password: g.get("password").str(""), CAFile: b.besideLake(g.get("ca"), "kafka.registry.ca")}
		if u := g.get("url"); u != nil {
			if x, err := url.Parse(u.text); err != nil || x.Host == "" || x.Scheme != "http" && x.Scheme != "https" {
				b.r.errorf(u.at, "it must be an address such as http://localhost:8081", "kafka.registry.url: %s", strconv.Quote(clip(u.shown)))
			}
		}
		if p := g.get("password"); p != nil && k.Registry.User == "" {
			b.r.errorf(p.at, "give it, such as user: lake", "kafka.registry has a password, but no user")
		}
	}
	if slices.ContainsFunc(v.keys, func(e entry) bool { return e.name == "tombstones" }) {
		t := v.get("tombstones")
		k.Tombstones = &Tombstones{Key: t.get("key").str(""), Time: t.get("time").str("")}
	}
	return k
}

// kafkaStart reads where reading begins.
func (b *builder) kafkaStart(k *Kafka, v *value) {
	at, offsets := v.get("at"), v.get("offsets")
	switch {
	case at != nil && offsets != nil:
		b.r.errorf(offsets.at, "", "kafka.start: it is given as %s and as offsets", strconv.Quote(clip(at.shown)))
	case v != nil && at == nil && offsets == nil:
		b.r.errorf(v.at, "it must be earliest, latest, a time or {offsets: {0: 1200}}", "kafka.start is empty")
	}
	if offsets != nil {
		k.Start, k.StartOffsets = StartOffsets, map[int32]int64{}
		for _, e := range offsets.keys {
			p, err := strconv.ParseInt(e.name, 10, 32)
			if err != nil || p < 0 {
				b.r.errorf(e.at, "partitions are numbers from 0", "kafka.start.offsets: %s is no partition", strconv.Quote(clip(e.name)))
				continue
			}
			k.StartOffsets[int32(p)] = e.v.int(0)
		}
	}
	if s := at; s != nil {
		switch strings.ToLower(s.text) {
		case StartEarliest, StartLatest:
			k.Start = strings.ToLower(s.text)
		default:
			at, err := time.Parse(time.RFC3339Nano, s.text)
			if err != nil {
				at, err = time.Parse(time.DateOnly, s.text)
			}
			if err != nil {
				b.r.errorf(s.at, "it must be earliest, latest or a time, such as 2024-08-20T00:00:00Z", "kafka.start: %s", strconv.Quote(clip(s.shown)))
			}
			k.Start, k.StartTime = StartTime, at
		}
	}
}
