package delta

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
)

// lastCheckpoint is the content of _last_checkpoint: a hint where to begin, nothing more (PROTOCOL.md, "Last Checkpoint
// File Schema").
type lastCheckpoint struct {
	Version       Version           `json:"version"`
	Size          int64             `json:"size"` // actions in the checkpoint
	Parts         *int              `json:"parts,omitempty"`
	SizeInBytes   *int64            `json:"sizeInBytes,omitempty"`
	NumOfAddFiles *int64            `json:"numOfAddFiles,omitempty"`
	V2            *lastV2Checkpoint `json:"v2Checkpoint,omitempty"`
	Checksum      string            `json:"checksum,omitempty"`
}

// lastV2Checkpoint repeats what a V2 checkpoint says, in Spark's form.
type lastV2Checkpoint struct {
	Path             string              `json:"path"` // name
	SizeInBytes      int64               `json:"sizeInBytes"`
	ModificationTime int64               `json:"modificationTime"` // ms since the epoch
	NonFileActions   []*checkpointAction `json:"nonFileActions,omitempty"`
	SidecarFiles     []sidecar           `json:"sidecarFiles,omitempty"`
}

// lastCheckpointActions bounds the lists of lastV2Checkpoint, as Spark does.
const lastCheckpointActions = 30

// encode gives the hint with its checksum.
func (h lastCheckpoint) encode() ([]byte, error) {
	h.Checksum = ""
	data, err := marshal(h)
	if err != nil {
		return nil, err
	}
	if h.Checksum, err = jsonChecksum(data); err != nil {
		return nil, err
	}
	return marshal(h)
}

// readLastCheckpoint gives the hint, or false if it is missing, cannot be read or is not whole, which is no error.
func (t *Table) readLastCheckpoint(ctx context.Context) (lastCheckpoint, bool) {
	data, _, err := readObject(ctx, t.store, t.logKey("_last_checkpoint"))
	if err != nil {
		return lastCheckpoint{}, false
	}
	var h struct {
		Version  Version `json:"version"`
		Checksum string  `json:"checksum"`
	}
	if json.Unmarshal(data, &h) != nil || h.Version < 0 {
		return lastCheckpoint{}, false
	}
	if h.Checksum != "" {
		if sum, err := jsonChecksum(data); err != nil || !strings.EqualFold(sum, h.Checksum) {
			return lastCheckpoint{}, false
		}
	}
	return lastCheckpoint{Version: h.Version, Checksum: h.Checksum}, true
}

// jsonChecksum is the checksum of a JSON object without its own member "checksum" (PROTOCOL.md, "JSON checksum").
func jsonChecksum(data []byte) (string, error) {
	canon, err := canonicalJSON(data)
	if err != nil {
		return "", err
	}
	sum := md5.Sum([]byte(canon))
	return hex.EncodeToString(sum[:]), nil
}

// canonicalDepth bounds the nesting of JSON that canonicalJSON takes.
const canonicalDepth = 100

// canonicalJSON spells an object as PROTOCOL.md, "JSON checksum", says. Names that stand twice are an error.
func canonicalJSON(data []byte) (string, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	type pair struct{ path, value string }
	var pairs []pair
	var value func(path string, depth int) error
	value = func(path string, depth int) error {
		if depth > canonicalDepth {
			return errors.New("nested too deep")
		}
		t, err := dec.Token()
		if err != nil {
			return err
		}
		put := func(v string) { pairs = append(pairs, pair{path, v}) }
		join := func(step string) string {
			if path == "" {
				return step
			}
			return path + "+" + step
		}
		switch t := t.(type) {
		case json.Delim:
			seen := map[string]bool{}
			for i := 0; dec.More(); i++ {
				step := strconv.Itoa(i)
				if t == '{' {
					k, err := dec.Token()
					if err != nil {
						return err
					}
					name, ok := k.(string)
					if !ok || seen[name] {
						return fmt.Errorf("member %v stands twice", k)
					}
					seen[name] = true
					if depth == 0 && name == "checksum" {
						at := len(pairs)
						if err := value("", 1); err != nil {
							return err
						}
						pairs = pairs[:at]
						continue
					}
					step = `"` + percentEncode(name) + `"`
				}
				if err := value(join(step), depth+1); err != nil {
					return err
				}
			}
			_, err := dec.Token() // the closing one
			return err
		case json.Number:
			put(t.String())
		case string:
			put(`"` + percentEncode(t) + `"`)
		case bool:
			put(strconv.FormatBool(t))
		case nil:
			put("null")
		}
		return nil
	}
	if err := value("", 0); err != nil {
		return "", err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return "", errors.New("more than one JSON value")
	}
	sort.Slice(pairs, func(i, j int) bool { return pairs[i].path < pairs[j].path })
	out := make([]string, len(pairs))
	for i, p := range pairs {
		out[i] = p.path + "=" + p.value
	}
	return strings.Join(out, ","), nil
}

// percentEncode encodes every byte but the unreserved ones of RFC 3986.
func percentEncode(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
