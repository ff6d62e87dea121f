package lab

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// NamedFiles replays the JSON entries of a table's log, with no code of Cauce, and returns the paths below the table's
// folder of all data files and deletion vectors that the newest version names.
func NamedFiles(t testing.TB, table string) []string {
	t.Helper()
	entries, err := filepath.Glob(filepath.Join(table, "_delta_log", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(entries)
	type vector struct {
		StorageType    string `json:"storageType"`
		PathOrInlineDv string `json:"pathOrInlineDv"`
	}
	type file struct {
		Path           string  `json:"path"`
		DeletionVector *vector `json:"deletionVector"`
	}
	live := map[string]*vector{}
	next := 0
	for _, name := range entries {
		var version int
		if n, err := fmt.Sscanf(filepath.Base(name), "%020d.json", &version); n != 1 || err != nil {
			continue
		}
		if version != next {
			t.Fatalf("the log has no version %d", next)
		}
		next++
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		var adds, removes []file
		sc := bufio.NewScanner(f)
		sc.Buffer(nil, 1<<26)
		for sc.Scan() {
			var action struct{ Add, Remove *file }
			if err := json.Unmarshal(sc.Bytes(), &action); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if action.Add != nil {
				adds = append(adds, *action.Add)
			}
			if action.Remove != nil {
				removes = append(removes, *action.Remove)
			}
		}
		if err := sc.Err(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		f.Close()
		for _, r := range removes { // the same path may come back with another vector in the same commit
			delete(live, r.Path)
		}
		for _, a := range adds {
			live[a.Path] = a.DeletionVector
		}
	}
	named := map[string]bool{}
	for path, dv := range live {
		decoded, err := url.PathUnescape(path)
		if err != nil {
			t.Fatal(err)
		}
		named[decoded] = true
		if dv != nil && dv.StorageType == "u" {
			named[vectorFile(t, dv.PathOrInlineDv)] = true
		}
	}
	var list []string
	for path := range named {
		list = append(list, path)
	}
	slices.Sort(list)
	return list
}

// vectorFile decodes the name of a deletion vector: a folder, then a UUID in 20 characters of Z85.
func vectorFile(t testing.TB, s string) string {
	t.Helper()
	const alphabet = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
	if len(s) < 20 {
		t.Fatalf("deletion vector %q is too short", s)
	}
	folder, code := s[:len(s)-20], s[len(s)-20:]
	var id []byte
	for i := 0; i < 20; i += 5 {
		var v uint32
		for _, c := range code[i : i+5] {
			v = v*85 + uint32(strings.IndexRune(alphabet, c))
		}
		id = binary.BigEndian.AppendUint32(id, v)
	}
	name := fmt.Sprintf("deletion_vector_%x-%x-%x-%x-%x.bin", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	return filepath.ToSlash(filepath.Join(folder, name))
}

// FilesOnDisk lists all files below the table's folder but those of its log, of which only unfinished ones count.
func FilesOnDisk(t testing.TB, table string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(table, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(table, path)
		if d.IsDir() || strings.HasPrefix(filepath.ToSlash(rel), "_delta_log/") && !strings.HasPrefix(d.Name(), ".tmp-") {
			return err
		}
		list = append(list, filepath.ToSlash(rel))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return list
}
