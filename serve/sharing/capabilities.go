package sharing

import (
	"net/http"
	"slices"
	"strings"

	"github.com/cauce-data/cauce/delta"
)

// capabilitiesHeader says what client and server can do (PROTOCOL.md, "Delta Sharing Capabilities Header").
const capabilitiesHeader = "delta-sharing-capabilities"

// The response formats.
const (
	formatParquet = "parquet"
	formatDelta   = "delta"
)

// capabilities are a client's, in lower case.
type capabilities struct {
	formats   []string // in the client's order; empty: parquet
	features  []string
	endStream bool
}

func parseCapabilities(header string) (capabilities, error) {
	var c capabilities
	for part := range strings.SplitSeq(strings.ToLower(header), ";") {
		key, value, _ := strings.Cut(part, "=")
		var values []string
		for v := range strings.SplitSeq(value, ",") {
			if v = strings.TrimSpace(v); v != "" {
				values = append(values, v)
			}
		}
		switch strings.TrimSpace(key) {
		case "responseformat":
			for _, v := range values {
				if v == formatParquet || v == formatDelta {
					c.formats = append(c.formats, v)
				}
			}
			if len(values) > 0 && len(c.formats) == 0 {
				return c, badParameter("%s: responseformat=%s: this server answers in parquet and delta", capabilitiesHeader, clip(value))
			}
		case "readerfeatures":
			c.features = values
		case "includeendstreamaction":
			c.endStream = slices.Contains(values, "true")
		}
	}
	if len(c.formats) == 0 {
		c.formats = []string{formatParquet}
	}
	return c, nil
}

// needs lists the reader features that a client must know to read a table in the delta format. Where rows are hidden they
// are hidden by deletion vectors.
func needs(p delta.Protocol, hide bool) []string {
	out := slices.Clone(p.ReaderFeatures)
	if p.MinReaderVersion == 2 {
		out = append(out, "columnMapping")
	}
	if hide && !slices.Contains(out, delta.FeatureDeletionVectors) {
		out = append(out, delta.FeatureDeletionVectors)
	}
	return out
}

// choose gives the format of a response: where the client leaves the choice, parquet for a table that needs no reader
// feature and delta for others, as far as the client knows its features. A table in the parquet format needs none: files
// that would are rewritten.
func (c *capabilities) choose(p delta.Protocol, hide bool) (string, error) {
	var missing []string
	all := needs(p, hide)
	for _, f := range all {
		if !slices.Contains(c.features, strings.ToLower(f)) {
			missing = append(missing, f)
		}
	}
	parquet, del := slices.Contains(c.formats, formatParquet), slices.Contains(c.formats, formatDelta)
	switch {
	case parquet && (!del || len(all) == 0 || len(missing) > 0):
		return formatParquet, nil
	case len(missing) > 0:
		return "", errorf(http.StatusBadRequest, codeUnsupported, "the table needs the reader features %s, and the client's %s header does not name %s; ask for responseformat=parquet, for which files are rewritten",
			strings.Join(all, ", "), capabilitiesHeader, strings.Join(missing, ", "))
	}
	return formatDelta, nil
}

// respond sets the headers that tell how the client is answered.
func (c *capabilities) respond(w http.ResponseWriter, format string) {
	v := "responseformat=" + format
	if c.endStream {
		v += ";includeendstreamaction=true"
	}
	w.Header().Set(capabilitiesHeader, v)
}
