package ingest_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cauce-data/cauce/ingest"
)

func TestLand(t *testing.T) {
	w := newWorld(t, tradesLake)
	ctx := context.Background()
	dir := t.TempDir()
	write := func(name, text string, minute int) string {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		at := start.Add(time.Duration(minute) * time.Minute)
		if err := os.Chtimes(p, at, at); err != nil {
			t.Fatal(err)
		}
		return p
	}
	land := func(p string) (ingest.Landed, error) {
		r, err := w.Land(ctx, []string{p}, ingest.LandOptions{})
		if err != nil {
			return ingest.Landed{}, err
		}
		return r.Files[0], nil
	}
	first := header + "\na,1,x,2024-08-19T10:00:00Z\n"
	p := write("trades_1.csv", first, -600)
	f, err := land(p)
	if err != nil || f.Status != ingest.LandedNew || f.Key != "raw/batch/trades_1.csv" || f.SHA256 != fmt.Sprintf("%x", sha256.Sum256([]byte(first))) {
		t.Fatalf("%+v, %v", f, err)
	}
	info, err := w.store.Stat(ctx, f.Key)
	if err != nil || !info.ModTime.Equal(start.Add(-600*time.Minute)) {
		t.Errorf("the file's time must be kept: %v, %v", info, err)
	}
	if f, err = land(p); err != nil || f.Status != ingest.LandedUnchanged {
		t.Errorf("%+v, %v", f, err)
	}
	// A re-issue replaces the file, and is newer than what it replaces even if its time says otherwise.
	write("trades_1.csv", header+"\na,2,x,2024-08-19T10:00:00Z\n", -700)
	if f, err = land(p); err != nil || f.Status != ingest.LandedReplaced {
		t.Errorf("%+v, %v", f, err)
	}
	if now, err := w.store.Stat(ctx, f.Key); err != nil || !now.ModTime.After(info.ModTime) {
		t.Errorf("%v, %v", now, err)
	}

	write("trades_2.csv", first, 0)
	write("trades_2.csv.CHECKSUM", fmt.Sprintf("%x  trades_2.csv\n", sha256.Sum256([]byte(first))), 0)
	if f, err = land(filepath.Join(dir, "trades_2.csv")); err != nil || !f.Verified {
		t.Errorf("%+v, %v", f, err)
	}
	write("trades_3.csv", first, 0)
	write("trades_3.csv.CHECKSUM", fmt.Sprintf("%x *trades_3.csv\n", sha256.Sum256([]byte("other"))), 0)
	if _, err = land(filepath.Join(dir, "trades_3.csv")); err == nil || !strings.Contains(err.Error(), "trades_3.csv") {
		t.Errorf("a wrong checksum: %v", err)
	}
	if _, err := w.store.Stat(ctx, "raw/batch/trades_3.csv"); err == nil {
		t.Error("a file with a wrong checksum has landed")
	}
	// sha256sum writes names as they are, with their spaces, and of names with a backslash it says so.
	sums := ""
	for _, f := range [][2]string{{"all of trades_4.csv", "not this one"}, {"trades_4.csv", first}, {"my trades_5.csv", first}, {`trades\_6.csv`, first}} {
		line := fmt.Sprintf("%x  %s\n", sha256.Sum256([]byte(f[1])), f[0])
		if strings.Contains(line, `\`) {
			line = `\` + strings.ReplaceAll(line, `\`, `\\`)
		}
		sums += line
	}
	for _, name := range []string{"trades_4.csv", "my trades_5.csv", `trades\_6.csv`} {
		write(name+".CHECKSUM", sums, 0)
		if f, err = land(write(name, first, 0)); err != nil || !f.Verified {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
	for _, name := range []string{"x.tmp", ".hidden.csv", "y.csv.part", "trades_caf\xe9.csv"} {
		if _, err := land(write(name, first, 0)); err == nil {
			t.Errorf("%s: landed although nobody would read it", name)
		}
	}
	if _, err := land(dir); err == nil {
		t.Error("a folder has landed")
	}
	// A pipe that nobody writes to is no file either, and nobody waits for it.
	pipe, ended := filepath.Join(dir, "pipe.csv"), make(chan error, 1)
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	go func() { _, err := w.Land(ctx, []string{pipe}, ingest.LandOptions{}); ended <- err }()
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "not a file") {
			t.Errorf("a pipe: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("a pipe is waited for")
		if f, err := os.OpenFile(pipe, os.O_RDWR, 0); err == nil { // that ends it
			<-ended
			_ = f.Close()
		}
	}
	r, err := w.Land(ctx, []string{write("unread.csv", first, 0)}, ingest.LandOptions{})
	if err != nil || len(r.Warnings) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := w.Land(ctx, []string{"a/x.csv", "b/x.csv"}, ingest.LandOptions{}); ingest.ExitCode(err) != 2 {
		t.Errorf("two files of one name: %v", err)
	}
}
