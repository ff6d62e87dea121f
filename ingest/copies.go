package ingest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A copy of a file that was read before, under a new name, changes nothing, so there is nothing to commit, and the
// source's progress learns the name only with its next commit. Until then the name is remembered on this machine, so
// that the copy is not hashed by every run. What is remembered may be lost or wrong at any time: then the file is hashed.

// copiesFile is where the copies of a source are remembered, apart for each root.
func (b *batchRun) copiesFile() string {
	root := sha256.Sum256([]byte(b.l.lake.Storage))
	return filepath.Join(b.l.lake.StateDir(), "copies", url.PathEscape(b.source.Name)+"-"+hex.EncodeToString(root[:8])+".json")
}

// remembered gives the marks of copies by their names.
func (b *batchRun) remembered() map[string]FileMark {
	raw, err := os.ReadFile(b.copiesFile())
	if err != nil {
		return nil
	}
	var marks []FileMark
	if err := json.Unmarshal(raw, &marks); err != nil {
		b.l.log.Debug("remembered copies cannot be read", "file", b.copiesFile(), "error", err)
		return nil
	}
	out := make(map[string]FileMark, len(marks))
	for _, m := range marks {
		out[m.Name] = m
	}
	return out
}

// remember keeps the copies that no commit has told of; none, where the last commit did.
func (b *batchRun) remember() {
	file := b.copiesFile()
	marks := slices.Clone(b.copies)
	slices.SortFunc(marks, func(x, y FileMark) int { return strings.Compare(x.Name, y.Name) })
	marks = slices.CompactFunc(marks, func(x, y FileMark) bool { return x.Name == y.Name })
	err := func() error {
		if len(marks) == 0 {
			if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
				return err
			}
			return nil
		}
		raw, err := json.Marshal(marks)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		tmp, err := os.CreateTemp(filepath.Dir(file), ".tmp-*")
		if err != nil {
			return err
		}
		defer os.Remove(tmp.Name())
		if _, err := tmp.Write(raw); err != nil {
			_ = tmp.Close()
			return err
		}
		if err := tmp.Close(); err != nil {
			return err
		}
		return os.Rename(tmp.Name(), file)
	}()
	if err != nil {
		b.l.log.Debug("copies cannot be remembered", "file", file, "error", err)
	}
}
