package live

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestMeter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m Meter
		closed := m.Opened()
		for range 200 { // ten seconds at 20 a second
			m.Event(time.Now().Add(-3 * time.Second))
			time.Sleep(50 * time.Millisecond)
		}
		closed()
		m.Opened()()
		if !m.Ignored("kline") || m.Ignored("kline") || !m.Malformed() || m.Malformed() {
			t.Error("first of its kind")
		}
		if !m.Dropped("A", "7") || m.Dropped("A", "9") {
			t.Error("first that was dropped")
		}
		for i := range 2 * kindsMax {
			m.Ignored(strconv.Itoa(i))
			m.Dropped(strconv.Itoa(i), "1")
			m.Lost(Lost{})
		}
		s := m.Stats()
		if s.Events != 200 || s.Rate < 19 || s.Rate > 20 || s.Lag != 3*time.Second || s.Reconnects != 1 || s.Connected {
			t.Errorf("%+v", s)
		}
		if s.IgnoredKinds["kline"] != 2 || s.Ignored != 2+2*kindsMax || len(s.IgnoredKinds) != kindsMax+1 || len(s.Dropped) != kindsMax+1 || len(s.Lost) != kindsMax {
			t.Errorf("%d kinds, %d series, %d ranges: %+v", len(s.IgnoredKinds), len(s.Dropped), len(s.Lost), s)
		}
		for _, d := range s.Dropped {
			if d.Series == "A" && (d.Events != 2 || d.First != "7" || d.Last != "9") {
				t.Errorf("%+v", d)
			}
		}
		time.Sleep(time.Minute)
		if r := m.Stats().Rate; r != 0 {
			t.Errorf("rate %v after a quiet minute", r)
		}
	})
}

func TestSeenRemembersTheNewest(t *testing.T) {
	s := Seen{Max: 100}
	for i := range 1000 {
		id := strconv.Itoa(i)
		if s.Has(id) {
			t.Fatalf("%s was not added", id)
		}
		s.Add(id)
		for _, back := range []int{0, 1, 99} {
			if i >= back && !s.Has(strconv.Itoa(i-back)) {
				t.Fatalf("%d is forgotten after %d more", i-back, back)
			}
		}
		if i >= 200 && s.Has(strconv.Itoa(i-200)) {
			t.Fatalf("%d is still remembered", i-200)
		}
	}
}

func TestState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "below", "s.json")
	s, err := Load(path, "a")
	if err != nil || s.Source != "a" || !s.Cursor.IsZero() {
		t.Fatalf("%+v, %v", s, err)
	}
	s.Cursor = time.UnixMicro(1783175888085434).UTC()
	s.Lost = make([]Lost, lostMax+5)
	s.Lost[lostMax+4].Reason = "last"
	if err := s.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path, "a")
	if err != nil || !got.Cursor.Equal(s.Cursor) || len(got.Lost) != lostMax || got.Lost[lostMax-1].Reason != "last" {
		t.Errorf("%+v, %v", got.Cursor, err)
	}
	if got, err := Load(path, "b"); err != nil || !got.Cursor.IsZero() {
		t.Errorf("another source's state is used: %+v, %v", got, err)
	}
	long := State{Source: "a b", Cursor: s.Cursor}
	if err := long.Save(path); err != nil {
		t.Fatal(err)
	}
	for source, serves := range map[string]bool{"a": true, "a b": true, "a c": false, "a b c": false} {
		if got, err := Load(path, source); err != nil || got.Source != source || got.Cursor.IsZero() == serves {
			t.Errorf("%s: %+v, %v", source, got, err)
		}
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path, "a"); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a damaged state: %v", err)
	}
}
