package pipeline

import (
	"regexp"
	"strconv"
	"time"
)

// PubSub says how a topic of Google Pub/Sub is reached and read.
type PubSub struct {
	Project      string
	Subscription string // through which the lake reads the topic; it must be the lake's alone
	// Ordering publishes with the message's key as ordering key, and makes the subscription deliver by it.
	Ordering bool
	// Credentials, ProducerCredentials and AdminCredentials are key files of the streaming job, of `cauce produce`, and of
	// `cauce topics` and `cauce doctor`; "": those of the environment (application default credentials).
	Credentials, ProducerCredentials, AdminCredentials string
	// AckDeadline is how long Pub/Sub waits for a killed process before it gives its messages to another.
	AckDeadline time.Duration
	Retention   time.Duration // of the subscription that `cauce topics create` makes; 0: seven days, as Google has it
	// LongestStop is how long the stream may stand still by plan: `cauce doctor` warns of a subscription that forgets sooner.
	LongestStop time.Duration
}

const (
	defaultAckDeadline = 10 * time.Second
	pubsubNameHint     = "names of Pub/Sub begin with a letter and have 3 to 255 letters, digits and characters of '-._~+%'"
)

var (
	pubsubName    = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._~+%-]{2,254}$`)
	pubsubProject = regexp.MustCompile(`^([a-z0-9.-]+:)?[a-z][a-z0-9-]{2,61}[a-z0-9]$`)
)

var pubsubShape = &shape{
	kind: kindObject, example: "{project: my-project, subscription: crypto_trades-lake}",
	doc: "How the topic of a source of kind pubsub is reached and read. Where PUBSUB_EMULATOR_HOST is set, Google's emulator at that address stands for the service.",
	keys: []keyShape{
		{"project", text("Id of the Google Cloud project.", "my-project"), true},
		{"subscription", text("Subscription of the topic through which the lake reads, and nothing else does: what another reader takes from it never comes here.", "crypto_trades-lake"), true},
		{"ordering", boolean("Publish each message with its key as ordering key, and deliver messages of one key in their order.", "true"), false},
		{"credentials", text("Key file of the streaming job's service account, relative to the lake file. Default: the credentials of the environment.", "stream.json"), false},
		{"producer_credentials", text("Key file of `cauce produce`, which may publish to the topic. Default: credentials.", "producer.json"), false},
		{"admin_credentials", text("Key file of `cauce topics` and `cauce doctor`, which may create topic and subscription. Default: producer_credentials.", "admin.json"), false},
		{"ack_deadline", &shape{kind: kindDuration, min: int64(10 * time.Second), max: int64(10 * time.Minute), doc: "How long messages stay with a process that was killed before Pub/Sub gives them to another; a living one prolongs it by itself. `cauce run stream --available-now` ends when nothing has come for twice as long.", def: "10s", example: "30s"}, false},
		{"retention", &shape{kind: kindDuration, min: int64(10 * time.Minute), max: int64(31 * 24 * time.Hour), doc: "How long the subscription keeps messages that are not in the table yet, for `cauce topics create`. Default: 7d. Make it longer than the longest stop of the stream.", example: "7d"}, false},
		{"longest_stop", &shape{kind: kindDuration, min: 1, doc: "The longest time that the stream may stand still by plan; `cauce doctor` warns when the subscription keeps messages for less.", def: "3d", example: "7d"}, false},
	},
}

func (b *builder) pubsub(v *value) *PubSub {
	p := &PubSub{
		Project: v.get("project").str(""), Subscription: v.get("subscription").str(""), Ordering: v.get("ordering").bool(true),
		Credentials: b.besideLake(v.get("credentials"), "pubsub.credentials"), ProducerCredentials: b.besideLake(v.get("producer_credentials"), "pubsub.producer_credentials"),
		AdminCredentials: b.besideLake(v.get("admin_credentials"), "pubsub.admin_credentials"), AckDeadline: defaultAckDeadline, LongestStop: defaultLongestStop,
	}
	if p.ProducerCredentials == "" {
		p.ProducerCredentials = p.Credentials
	}
	if p.AdminCredentials == "" {
		p.AdminCredentials = p.ProducerCredentials
	}
	for key, into := range map[string]*time.Duration{"ack_deadline": &p.AckDeadline, "retention": &p.Retention, "longest_stop": &p.LongestStop} {
		if d := v.get(key); d != nil {
			*into = time.Duration(d.num)
		}
	}
	if x := v.get("project"); x != nil && !pubsubProject.MatchString(x.text) {
		b.r.errorf(x.at, "it is the project's id, such as my-project-123, not its name or number", "pubsub.project: %s", strconv.Quote(clip(x.shown)))
	}
	if x := v.get("subscription"); x != nil && !pubsubName.MatchString(x.text) {
		b.r.errorf(x.at, pubsubNameHint, "pubsub.subscription: %s", strconv.Quote(clip(x.shown)))
	}
	return p
}
