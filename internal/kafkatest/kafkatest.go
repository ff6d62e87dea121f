// Package kafkatest runs a real Apache Kafka broker (KRaft, one node, from the jars that test/setup.sh gets from Maven)
// for tests and measurements, with users, roles, and ways to hurt it.
package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cauce-data/cauce/internal/prereq"
)

// Options shape a broker.
type Options struct {
	// Jars is the folder of Kafka's jars.
	Jars string
	// Dir holds the broker's data and log; it must be empty or that of an earlier broker.
	Dir string
	// Users are users with their passwords, of SCRAM-SHA-512 and SCRAM-SHA-256. With any, clients of Addr must authenticate
	// and may do only what Allow granted.
	Users map[string]string
	// TLS encrypts connections to Addr, with a certificate of 127.0.0.1 that Broker.CA has signed.
	TLS bool
	// ClientCerts says that clients of Addr must show a certificate that Broker.CA has signed, with TLS.
	ClientCerts bool
	// Properties are added to the broker's configuration.
	Properties map[string]string
}

// Broker is a running (or killed) broker.
type Broker struct {
	// Addr is where clients connect; Admin is a door without authentication for whoever sets the stage.
	Addr, Admin string
	CA          string // PEM file of the certificate to trust, with Options.TLS
	// ClientCert and ClientKey are PEM files of a client's certificate and its key, with Options.TLS.
	ClientCert, ClientKey string

	o      Options
	props  string
	cmd    *exec.Cmd
	exited chan struct{}
}

// New starts a broker for a test, which ends with it. Without Java or the jars the test is skipped by name.
func New(t testing.TB, users map[string]string) *Broker {
	t.Helper()
	return NewWith(t, Options{Users: users})
}

// NewWith is New with options; Jars and Dir are filled.
func NewWith(t testing.TB, o Options) *Broker {
	t.Helper()
	prereq.Need(t, "java")
	o.Jars, o.Dir = prereq.Need(t, "kafka"), t.TempDir()
	b, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Stop)
	return b
}

// Start formats the folder if it is new, starts the broker and waits until it answers.
func Start(ctx context.Context, o Options) (*Broker, error) {
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	b := &Broker{
		Addr: fmt.Sprintf("127.0.0.1:%d", ports[0]), Admin: fmt.Sprintf("127.0.0.1:%d", ports[1]),
		o: o, props: filepath.Join(o.Dir, "server.properties"),
	}
	client := "PLAINTEXT"
	if o.TLS {
		client = "SSL"
	}
	if len(o.Users) > 0 {
		client = "SASL_" + client
	}
	props := map[string]string{
		"process.roles": "broker,controller", "node.id": "1",
		"controller.quorum.voters":                 fmt.Sprintf("1@127.0.0.1:%d", ports[2]),
		"listeners":                                fmt.Sprintf("CLIENT://%s,INTERNAL://%s,CONTROLLER://127.0.0.1:%d", b.Addr, b.Admin, ports[2]),
		"advertised.listeners":                     fmt.Sprintf("CLIENT://%s,INTERNAL://%s", b.Addr, b.Admin),
		"listener.security.protocol.map":           "CLIENT:" + client + ",INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"inter.broker.listener.name":               "INTERNAL",
		"controller.listener.names":                "CONTROLLER",
		"sasl.enabled.mechanisms":                  "SCRAM-SHA-512,SCRAM-SHA-256",
		"log.dirs":                                 filepath.Join(o.Dir, "data"),
		"offsets.topic.replication.factor":         "1",
		"transaction.state.log.replication.factor": "1",
		"transaction.state.log.min.isr":            "1",
		"offsets.topic.num.partitions":             "1",
		"transaction.state.log.num.partitions":     "1",
		"group.initial.rebalance.delay.ms":         "0",
		"auto.create.topics.enable":                "false",
		"log.retention.check.interval.ms":          "500",
		"log.initial.task.delay.ms":                "100",
		"file.delete.delay.ms":                     "100",
		"broker.session.timeout.ms":                "3000",
		"delete.topic.enable":                      "true",
	}
	if len(o.Users) > 0 {
		props["authorizer.class.name"] = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
		props["super.users"] = "User:ANONYMOUS"
		for _, m := range []string{"scram-sha-512", "scram-sha-256"} {
			props["listener.name.client."+m+".sasl.jaas.config"] = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
		}
	}
	if o.TLS {
		b.CA = filepath.Join(o.Dir, "ca.pem")
		keys := filepath.Join(o.Dir, "broker.pem")
		b.ClientCert, b.ClientKey = filepath.Join(o.Dir, "client.pem"), filepath.Join(o.Dir, "client-key.pem")
		if err := certificates(b.CA, keys, b.ClientCert, b.ClientKey); err != nil {
			return nil, err
		}
		if o.ClientCerts {
			props["listener.name.client.ssl.client.auth"] = "required"
			props["listener.name.client.ssl.truststore.type"] = "PEM"
			props["listener.name.client.ssl.truststore.location"] = b.CA
		}
		props["listener.name.client.ssl.keystore.type"] = "PEM"
		props["listener.name.client.ssl.keystore.location"] = keys
	}
	for k, v := range o.Properties {
		props[k] = v
	}
	var sb strings.Builder
	for k, v := range props {
		fmt.Fprintf(&sb, "%s=%s\n", k, v)
	}
	if err := os.WriteFile(b.props, []byte(sb.String()), 0o600); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(o.Dir, "data", "meta.properties")); err != nil {
		args := []string{"format", "-t", clusterID(), "-c", b.props}
		for u, p := range o.Users {
			for _, m := range []string{"SCRAM-SHA-512", "SCRAM-SHA-256"} {
				args = append(args, "--add-scram", fmt.Sprintf("%s=[name=%s,password=%s]", m, u, p))
			}
		}
		cmd := b.java(ctx, "kafka.tools.StorageTool", args...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("format Kafka's folder: %w: %s", err, out)
		}
	}
	if err := b.Restart(ctx); err != nil {
		return nil, err
	}
	return b, nil
}

// clusterID is a UUID in Kafka's spelling: 22 characters of base64url, without a leading dash.
func clusterID() string {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	u := uuid.New()
	id := make([]byte, 22)
	for i := range id {
		id[i] = digits[int(u[i%16]+byte(i))%len(digits)]
	}
	id[21] = 'A' // 128 bits end inside the last digit
	return string(id)
}

func (b *Broker) java(ctx context.Context, class string, args ...string) *exec.Cmd {
	all := append([]string{"-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", filepath.Join(b.o.Jars, "*"), class}, args...)
	cmd := exec.CommandContext(ctx, "java", all...) //nolint:gosec // a test's own program
	cmd.Dir = b.o.Dir
	return cmd
}

// Restart starts a broker that has been killed, on the same addresses and data.
func (b *Broker) Restart(ctx context.Context) error {
	log, err := os.OpenFile(filepath.Join(b.o.Dir, "broker.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	b.cmd = b.java(context.WithoutCancel(ctx), "kafka.Kafka", b.props)
	b.cmd.Stdout, b.cmd.Stderr = log, log
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	b.exited = exited
	go func(cmd *exec.Cmd) { _ = cmd.Wait(); close(exited) }(b.cmd)
	deadline := time.Now().Add(time.Minute)
	for {
		err := b.ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-exited:
			return fmt.Errorf("the Kafka broker ended while it started: %s", b.tail())
		case <-ctx.Done():
			b.Kill()
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			b.Kill()
			return fmt.Errorf("the Kafka broker does not answer: %w: %s", err, b.tail())
		}
	}
}

func (b *Broker) tail() string {
	out, _ := os.ReadFile(filepath.Join(b.o.Dir, "broker.log"))
	if len(out) > 2000 {
		out = out[len(out)-2000:]
	}
	return string(out)
}

func (b *Broker) ping(ctx context.Context) error {
	c, err := net.DialTimeout("tcp", b.Admin, time.Second)
	if err != nil {
		return err
	}
	_ = c.Close()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	return b.admin(func(adm *kadm.Client) error {
		brokers, err := adm.ListBrokers(ctx)
		if err == nil && len(brokers) == 0 {
			err = errors.New("no broker has registered")
		}
		return err
	})
}

func (b *Broker) admin(do func(*kadm.Client) error) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Admin))
	if err != nil {
		return err
	}
	defer cl.Close()
	return do(kadm.NewClient(cl))
}

// Kill ends the broker as kill -9 does.
func (b *Broker) Kill() {
	if b.cmd != nil && b.cmd.Process != nil {
		_ = b.cmd.Process.Kill()
		<-b.exited
	}
}

// Stop ends the broker for good.
func (b *Broker) Stop() { b.Kill() }

// Pause stops the broker without closing its connections: they are half-open until Resume.
func (b *Broker) Pause() { _ = b.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume lets a paused broker go on.
func (b *Broker) Resume() { _ = b.cmd.Process.Signal(syscall.SIGCONT) }

// CreateTopic makes a topic through the door of the administrator and waits until the broker answers for it: the
// controller makes it first.
func (b *Broker) CreateTopic(ctx context.Context, topic string, partitions int32, configs map[string]string) error {
	c := map[string]*string{}
	for k, v := range configs {
		c[k] = &v
	}
	return b.admin(func(adm *kadm.Client) error {
		r, err := adm.CreateTopic(ctx, partitions, 1, c, topic)
		if err := errors.Join(err, r.Err); err != nil {
			return err
		}
		for deadline := time.Now().Add(20 * time.Second); ; {
			topics, err := adm.ListTopics(ctx, topic)
			d := topics[topic]
			ready := 0
			for _, p := range d.Partitions {
				if p.Err == nil && p.Leader >= 0 {
					ready++
				}
			}
			if err == nil && d.Err == nil && ready == int(partitions) {
				return nil
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("topic %s was made, but the broker does not know it: %d of %d partitions are ready: %w", topic, ready, partitions, errors.Join(err, d.Err))
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
}

// DeleteTopic removes a topic.
func (b *Broker) DeleteTopic(ctx context.Context, topic string) error {
	return b.admin(func(adm *kadm.Client) error {
		r, err := adm.DeleteTopic(ctx, topic)
		return errors.Join(err, r.Err)
	})
}

// Truncate deletes all records of a partition before an offset, as retention does.
func (b *Broker) Truncate(ctx context.Context, topic string, partition int32, before int64) error {
	return b.admin(func(adm *kadm.Client) error {
		var o kadm.Offsets
		o.AddOffset(topic, partition, before, -1)
		r, err := adm.DeleteRecords(ctx, o)
		return errors.Join(err, r.Error())
	})
}

// AddPartitions raises the number of partitions to n.
func (b *Broker) AddPartitions(ctx context.Context, topic string, n int) error {
	return b.admin(func(adm *kadm.Client) error {
		r, err := adm.UpdatePartitions(ctx, n, topic)
		return errors.Join(err, r.Error())
	})
}

// AllowProduce lets a user write one topic, and nothing else.
func (b *Broker) AllowProduce(ctx context.Context, user, topic string) error {
	return b.allow(ctx, kadm.NewACLs().Allow("User:"+user).AllowHosts("*").Topics(topic).
		ResourcePatternType(kadm.ACLPatternLiteral).Operations(kadm.OpWrite, kadm.OpDescribe))
}

// AllowConsume lets a user read one topic and commit offsets of one group, and nothing else.
func (b *Broker) AllowConsume(ctx context.Context, user, topic, group string) error {
	if err := b.allow(ctx, kadm.NewACLs().Allow("User:"+user).AllowHosts("*").Topics(topic).
		ResourcePatternType(kadm.ACLPatternLiteral).Operations(kadm.OpRead, kadm.OpDescribe)); err != nil {
		return err
	}
	return b.allow(ctx, kadm.NewACLs().Allow("User:"+user).AllowHosts("*").Groups(group).
		ResourcePatternType(kadm.ACLPatternLiteral).Operations(kadm.OpRead))
}

func (b *Broker) allow(ctx context.Context, acl *kadm.ACLBuilder) error {
	return b.admin(func(adm *kadm.Client) error {
		rs, err := adm.CreateACLs(ctx, acl)
		for _, r := range rs {
			err = errors.Join(err, r.Err)
		}
		return err
	})
}

func freePorts(n int) ([]int, error) {
	var out []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		out = append(out, l.Addr().(*net.TCPAddr).Port) //nolint:errcheck // of a TCP listener
	}
	return out, nil
}
