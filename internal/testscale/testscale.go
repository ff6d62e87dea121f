// Package testscale is the one table of how much each randomised or long test does, at the three sizes in which the
// tests run: `make test-short`, `make test` and `make soak`. A test asks it for its budget and its seed; nothing else
// in the project decides how long a test may take.
package testscale

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Size is how much of the work the tests do.
type Size int

// The sizes, smallest first.
const (
	Short Size = iota // a glance: go test -short
	Test              // what a change must pass
	Soak              // the full counts
)

// Environment variables that the make targets set, and that a person may set to repeat one run.
const (
	SizeEnv = "CAUCE_TEST_SIZE" // short | test | soak; without it go test's own -short flag decides between short and test
	SeedEnv = "CAUCE_TEST_SEED" // the seed that a failed run printed
)

// String is the name of the size as SizeEnv has it.
func (s Size) String() string { return [...]string{"short", "test", "soak"}[s] }

// Current is the size of this run.
func Current() Size {
	switch os.Getenv(SizeEnv) {
	case "short":
		return Short
	case "soak":
		return Soak
	case "test":
		return Test
	}
	if testing.Short() {
		return Short
	}
	return Test
}

// scale is one line of the table. Count at soak is the number that the promise names.
type scale struct {
	short, test, soak int
	// testTime is how long `make test` goes on between test and soak counts: it stops at the first turn that is
	// beyond both test turns and testTime, and at soak turns in any case.
	testTime time.Duration
	why      string
}

// table holds every scaled count of the project. Each test value is the tenth part of soak's, or 30 s of turns if
// that is more.
var table = map[string]scale{
	"kills":              {short: 2, test: 20, soak: 200, testTime: 30 * time.Second, why: "kill -9 of the real binary during batch, stream and maintenance"},
	"kills-per-phase":    {short: 1, test: 1, soak: 10, why: "kills that must have hit each phase"},
	"buffer-kills":       {short: 2, test: 5, soak: 50, testTime: 30 * time.Second, why: "kill -9 of the process that hosts the stream buffer"},
	"stream-kills":       {short: 3, test: 5, soak: 50, testTime: 20 * time.Second, why: "kill -9 of producer, Kafka broker and stream job while an exchange trades"},
	"writer-seconds":     {short: 5, test: 20, soak: 600, why: "seconds that processes, and Spark beside them, write one table"},
	"scheduler-kills":    {short: 2, test: 4, soak: 31, why: "lives of a scheduler, each but the first ended by kill -9 in the middle of its batch"},
	"spark-driver-kills": {short: 0, test: 1, soak: 30, why: "kill -9 of a Spark application and of who submitted it"},
	"airflow-kills":      {short: 0, test: 0, soak: 30, why: "kill -9 of Airflow's scheduler and whatever it runs; also whether it is started at all, beside an API server"},
	"demo-full":          {short: 0, test: 0, soak: 1, why: "whether the whole architecture is brought up, with Kafka, S3, Spark, Airflow and Superset"},
	"day-minutes":        {short: 60, test: 1440, soak: 1440, why: "minutes after which a simulated exchange ends a connection; few under the race detector, which may end the process in a bubble of many ticks (golang/go#78156)"},
	"spool-lives":        {short: 5, test: 40, soak: 400, testTime: 5 * time.Second, why: "random lives of a spool whose process dies and whose topic fails"},
	"stream-seconds":     {short: 6, test: 20, soak: 3600, why: "how long an exchange trades through Kafka into a table that is watched, after three quarters of that"},
	"bucket-turns":       {short: 1, test: 2, soak: 20, why: "turns of stream, batch and OPTIMIZE on a bucket that fails at random"},
	"commit-seconds":     {short: 5, test: 20, soak: 300, why: "seconds that processes commit to one table on S3 through DynamoDB"},
	"bucket-kills":       {short: 1, test: 10, soak: 100, why: "kill -9 of the real binary on a lake in a bucket"},
	"pubsub-phase-kills": {short: 0, test: 1, soak: 1, why: "whether streams of Pub/Sub are killed in two phases"},
	"pubsub-kills":       {short: 0, test: 5, soak: 50, testTime: 20 * time.Second, why: "kill -9 of producer and stream jobs of Pub/Sub"},
	"pruned-scans":       {short: 50, test: 300, soak: 5000, why: "random conditions over random tables, with files left out and without"},
	"orders":             {short: 20, test: 100, soak: 1000, why: "permuted, repeated and interrupted inputs compared by logical hash"},
	"source-orders":      {short: 2, test: 12, soak: 200, why: "histories that files and a stream bring in four orders each"},
	"crash-share":        {short: 8, test: 25, soak: 100, why: "percent of the calls of the store, drawn at random, at which the process dies in turn"},
	"purges":             {short: 1, test: 12, soak: 400, why: "histories with deletions that are forgotten, in any order and interrupted"},
	"faults":             {short: 50, test: 300, soak: 3000, why: "store calls that fail, tear or stop in turn"},
	"writers":            {short: 20, test: 60, soak: 600, why: "commits of concurrent writers of one table"},
	"schedules":          {short: 10, test: 1_000, soak: 10_000, why: "seed-driven histories of many writers over a faulty store"},
	"peer-rows":          {short: 2_000, test: 20_000, soak: 200_000, why: "rows of the table that other engines read"},
	"flow-rows":          {short: 15_000, test: 30_000, soak: 300_000, why: "rows of a history that is compared row by row"},
	"expressions":        {short: 500, test: 3000, soak: 30_000, why: "random expressions that Go and DuckDB evaluate alike"},
	"dml-steps":          {short: 60, test: 250, soak: 2500, why: "random UPDATE, DELETE and MERGE statements compared with a model or with Spark"},
	"spark-statements":   {short: 4, test: 11, soak: 300, why: "random statements that Spark runs on a table of its own"},
	"schema-steps":       {short: 20, test: 40, soak: 1500, testTime: 5 * time.Second, why: "random changes of schema and rows compared with a model, for each way of mapping columns"},
	"prove-plans":        {short: 0, test: 5, soak: 200, why: "random lake files that Spark and the embedded engine run alike"},
	"spark-kills":        {short: 2, test: 2, soak: 30, why: "kill -9 of Spark's driver while a stream moves between it and the embedded engine"},
	"prove-records":      {short: 50, test: 200, soak: 400, why: "adversarial records that go through each of them"},
	"optimize-files":     {short: 50, test: 500, soak: 500, why: "small files that one OPTIMIZE packs"},
	"memory-epochs":      {short: 0, test: 2000, soak: 20_000, why: "micro-batches after which the memory is what it was"},
	"long-record-mb":     {short: 8, test: 64, soak: 1024, why: "length of one line of bad input"},
}

// NotAtShort skips, at size short, a test that takes more time than a glance has; what says why it does.
func NotAtShort(t testing.TB, what string) {
	t.Helper()
	if Current() == Short {
		t.Skip("short: " + what)
	}
}

// Count is the number that the table gives for name at the current size. An unknown name fails the test.
func Count(t testing.TB, name string) int {
	t.Helper()
	return entry(t, name).count(Current())
}

// Turns yields 0, 1, 2 … for as many turns as the table gives name: Count turns, and at size Test further ones, up to
// the soak count, until the entry's time has passed.
func Turns(t testing.TB, name string) func(yield func(int) bool) {
	t.Helper()
	e, size, start := entry(t, name), Current(), time.Now()
	return func(yield func(int) bool) {
		for i := 0; e.more(size, i, time.Since(start)); i++ {
			if !yield(i) {
				return
			}
		}
	}
}

func entry(t testing.TB, name string) scale {
	t.Helper()
	e, ok := table[name]
	if !ok {
		t.Fatalf("testscale: no entry %q", name)
	}
	return e
}

func (e scale) count(s Size) int { return [...]int{e.short, e.test, e.soak}[s] }

func (e scale) more(s Size, done int, spent time.Duration) bool {
	if done < e.count(s) {
		return true
	}
	return s == Test && spent < e.testTime && done < e.soak
}

var (
	seedOnce sync.Once
	seed     uint64
)

// Seed is the seed of this run: that of SeedEnv, else a new one. It is printed with the test's log, and again when the
// test fails, so that the run can be repeated.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seedOnce.Do(func() {
		if s := os.Getenv(SeedEnv); s != "" {
			n, err := strconv.ParseUint(s, 10, 64)
			if err != nil {
				panic(fmt.Sprintf("%s=%q is not a number", SeedEnv, s))
			}
			seed = n
			return
		}
		seed = uint64(time.Now().UnixNano()) % 1_000_000_000
	})
	t.Logf("seed %d (repeat with %s=%d)", seed, SeedEnv, seed)
	return seed
}

// Rand is a random generator that is a pure function of Seed and the test's name.
func Rand(t testing.TB) *rand.Rand {
	t.Helper()
	h := uint64(14695981039346656037)
	for _, c := range []byte(t.Name()) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return rand.New(rand.NewPCG(Seed(t), h))
}
