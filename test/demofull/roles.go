package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/cauce-data/cauce/internal/cloudtest"
	"github.com/cauce-data/cauce/internal/demodata"
	"github.com/cauce-data/cauce/internal/kafkatest"
	"github.com/cauce-data/cauce/internal/loopback"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/test/lab"
)

// roles is phase 1: an S3 server and Kafka with the rights of deploy/terraform, the bucket, its folders, the topic; and that what a
// role may not do is denied.
func (d *demo) roles() {
	d.s3 = cloudtest.NewS3WithUsers(d.t)
	d.s3.Bucket(d.t, bucket)
	for _, role := range roles {
		var policies []string
		for _, of := range policiesOf(role) {
			policies = append(policies, cloudtest.RolePolicy(d.t, of, bucket))
		}
		access, secret := d.s3.User(d.t, role, policies...)
		d.keys[role] = access
		d.env[role] = append(cloudtest.AWSEnv(d.s3.Endpoint, access, secret), "AWS_ALLOW_HTTP=true") // the last is for deltalake
	}
	d.say("S3: versitygw at %s, bucket %s, users %s", d.s3.Endpoint, bucket, strings.Join(roles, ", "))

	users := map[string]string{roleProducer: "pw-producer", roleStreaming: "pw-streaming"}
	var err error
	if d.kafka, err = kafkatest.Start(d.t.Context(), kafkatest.Options{Jars: prereq.Need(d.t, "kafka"), Dir: d.within("kafka"), Users: users}); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(d.kafka.Stop)
	ctx := d.t.Context()
	if err := errors.Join(d.kafka.CreateTopic(ctx, topic, 3, nil), d.kafka.AllowProduce(ctx, roleProducer, topic), d.kafka.AllowConsume(ctx, roleStreaming, topic, "cauce-live")); err != nil {
		d.t.Fatal(err)
	}
	d.env[roleProducer] = append(d.env[roleProducer], "PRODUCER_PASSWORD="+users[roleProducer])
	d.env[roleStreaming] = append(d.env[roleStreaming], "STREAM_PASSWORD="+users[roleStreaming])
	d.say("Kafka at %s, topic %s with three partitions, users %s and %s", d.kafka.Addr, topic, roleProducer, roleStreaming)

	d.makeLake()
	var folders []string
	for key := range d.objects("") {
		if strings.HasSuffix(key, "/.keep") {
			folders = append(folders, filepath.Dir(key))
		}
	}
	slices.Sort(folders)
	d.equal("folders of the bucket", folders, []string{"processed", "raw/batch", "raw/streaming"}, "the S3 server's own disk")

	d.makeHistory()
	one := d.made.Files[0].Name
	before := d.objects("")
	for _, x := range []struct {
		role, needs string
		args        []string
	}{
		{roleReader, "s3:GetObject on arn:aws:s3:::" + bucket + "/raw/batch/", []string{"land", filepath.Join(d.within("downloads"), one)}},
		{roleStreaming, "s3:GetObject on arn:aws:s3:::" + bucket + "/raw/batch/", []string{"land", filepath.Join(d.within("downloads"), one)}},
		{roleProducer, "s3:", []string{"run", "batch"}},
	} {
		d.denied(x.role, x.needs, x.args...)
	}
	after := d.objects("")
	d.holds("what was denied left no trace", maps.Equal(before, after), fmt.Sprintf("%d objects", len(after)), fmt.Sprintf("the %d objects of before, untouched", len(before)), "the S3 server's own disk")
	err = d.produceAs(roleStreaming, users[roleStreaming])
	d.holds("the streaming user may not write the topic", errors.Is(err, kerr.TopicAuthorizationFailed), err, kerr.TopicAuthorizationFailed.Error(), "Kafka's answer to a client that is not Cauce")
}

// policiesOf are the roles of deploy/terraform whose policies a user has.
func policiesOf(role string) []string {
	switch role {
	case roleProducer: // it sees no bucket
		return nil
	case roleNightly:
		return []string{roleBatch, roleMaintenance}
	}
	return []string{role}
}

// denied runs a command that the S3 server must deny to a role.
func (d *demo) denied(role, needs string, args ...string) {
	d.t.Helper()
	out, errs, code := d.as(role).Try(append(args, "--json")...)
	var said struct{ Error string }
	if err := json.Unmarshal([]byte(out), &said); err != nil {
		d.t.Fatalf("cauce %s: %v in %q %s", strings.Join(args, " "), err, out, errs)
	}
	words := args[0]
	if len(args) > 1 && !strings.Contains(args[1], "/") {
		words += " " + args[1]
	}
	want := "denied to access key " + d.keys[role] + ": it needs " + needs
	got := fmt.Sprintf("exit code %d", code)
	if code != 2 || !strings.Contains(said.Error, want) {
		got += ": " + said.Error
	}
	d.holds(fmt.Sprintf("%s may not %s", role, words), code == 2 && strings.Contains(said.Error, want), got, "exit code 2, "+want+"…", "the rights of deploy/terraform, which the S3 server enforces")
}

// produceAs tries to write a message.
func (d *demo) produceAs(user, password string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(d.kafka.Addr), kgo.DefaultProduceTopic(topic), kgo.DisableIdempotentWrite(), kgo.SASL(scram.Auth{User: user, Pass: password}.AsSha512Mechanism()))
	if err != nil {
		d.t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	defer cancel()
	return cl.ProduceSync(ctx, kgo.StringRecord("{}")).FirstErr()
}

// makeLake writes the lake file with cauce init, makes the bucket's folders, and puts the topic's place into the file.
func (d *demo) makeLake() {
	dir := d.within("lake")
	d.lake = lab.LakeIn(d.t, dir)
	d.env["root"] = d.s3.Env("")
	d.as("root").Run("init", ".", "--template", "crypto", "--storage", root, "--folders")
	file := filepath.Join(dir, "lake.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		d.t.Fatal(err)
	}
	d.pg = loopback.Free(d.t)
	lake := string(text)
	replace := func(pattern, with string) {
		changed := regexp.MustCompile("(?m)"+pattern).ReplaceAllLiteralString(lake, with)
		if changed == lake {
			d.t.Fatalf("the template has nothing like %s", pattern)
		}
		lake = changed
	}
	replace(`^    kind: embedded .*$`, fmt.Sprintf(`    kind: kafka
    kafka:
      brokers: [%q]
      group: cauce-live
      sasl: {user: %s, password: "${env:STREAM_PASSWORD:-none}"}
      producer: {user: %s, password: "${env:PRODUCER_PASSWORD:-none}"}`, d.kafka.Addr, roleStreaming, roleProducer))
	lake += "serve: {pg_listen: \"" + d.pg + "\", workers: 2}\n"
	if err := os.WriteFile(file, []byte(lake), 0o644); err != nil {
		d.t.Fatal(err)
	}
	d.as(roleBatch).Run("check")
	d.say("lake file %s, storage %s", file, root)
}

// makeHistory writes six days of trades into the folder downloads, as exchanges and people would deliver them.
func (d *demo) makeHistory() {
	var err error
	if d.made, err = demodata.Generate(demodata.Options{Seed: d.o.seed, Today: time.Now()}); err != nil {
		d.t.Fatal(err)
	}
	for _, f := range d.made.Files {
		d.download("downloads", f)
	}
}

// download writes a file with its own time of modification.
func (d *demo) download(folder string, f demodata.File) string {
	path := filepath.Join(d.within(folder), f.Name)
	if err := errors.Join(os.WriteFile(path, f.Data, 0o644), os.Chtimes(path, f.ModTime, f.ModTime)); err != nil {
		d.t.Fatal(err)
	}
	return path
}
