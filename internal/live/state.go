package live

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// lostMax bounds the ranges that a state file keeps.
const lostMax = 1000

// State is how far a client has got, as it stands in its file.
type State struct {
	// Source says what was read, such as a kind and an address. A state of another source says nothing about this one.
	Source string `json:"source"`
	// Cursor is the time of the newest event that is safe; zero: none is.
	Cursor time.Time `json:"cursor"`
	// Lost are the ranges of time that are known to be missing.
	Lost []Lost `json:"lost,omitempty"`
}

// Load reads the state of a source; the zero State of that source if there is no file ("" names none), or if it is
// another source's. A state that says more, as "a b" does where source is "a", serves too.
func Load(path, source string) (State, error) {
	zero := State{Source: source}
	if path == "" {
		return zero, nil
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return zero, nil
	}
	if err != nil {
		return zero, fmt.Errorf("producer's state: %w", err)
	}
	var s State
	if err := json.Unmarshal(b, &s); err != nil {
		return zero, fmt.Errorf("producer's state %s is damaged (%w); without it the producer begins with what is live: remove the file to accept that", path, err)
	}
	if s.Source != source && !strings.HasPrefix(s.Source, source+" ") {
		return zero, nil
	}
	s.Source = source
	return s, nil
}

// Save writes the state, whole or not at all.
func (s *State) Save(path string) error {
	if path == "" {
		return nil
	}
	if n := len(s.Lost); n > lostMax {
		s.Lost = s.Lost[n-lostMax:]
	}
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("producer's state: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("producer's state: %w", err)
	}
	tmp := path + ".tmp"
	err = write(tmp, append(b, '\n'))
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return fmt.Errorf("producer's state: %w", err)
	}
	return nil
}

// write writes a file that a power cut does not empty.
func write(path string, b []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
