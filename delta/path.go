package delta

import (
	"fmt"
	"net/url"
	"path"
	"strings"
)

// EncodePath turns a file's path below the table's root into the form of Add.Path, an RFC 2396 URI: every byte that a
// URI does not allow is percent-encoded, once, after hive's own escaping of the folder (so its "%" becomes "%25").
func EncodePath(p string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(p); i++ {
		c := p[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-_.!~*'()/=+$,&;@", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hex[c>>4])
		b.WriteByte(hex[c&15])
	}
	return b.String()
}

// decodePath undoes percent-encoding, exactly once. A plus sign stays a plus sign.
func decodePath(p string) (string, error) {
	d, err := url.PathUnescape(p)
	if err != nil {
		return "", fmt.Errorf("%w: path %q: %w", ErrCorrupt, p, err)
	}
	return d, nil
}

// FileKey gives the key in the table's store of a path in the log (PROTOCOL.md, "Add File and Remove File"): a path
// relative to the table's root, or an absolute one that lies below the store's root.
func (i TableInfo) FileKey(p string) (string, error) {
	dec, err := decodePath(p)
	if err != nil {
		return "", err
	}
	// A colon that is encoded is no scheme's.
	if scheme, _, ok := splitScheme(p); ok || strings.HasPrefix(dec, "/") {
		rest := strings.TrimPrefix(dec[len(scheme):], ":")
		root := strings.TrimSuffix(i.Store.URL(), "/")
		rootScheme, rootRest, _ := splitScheme(root)
		if !ok {
			scheme = rootScheme
			if rootScheme != "file" {
				return "", &UnsupportedError{What: "data file outside of the store", Names: []string{dec}}
			}
		}
		if scheme == "file" {
			rest = "/" + strings.TrimLeft(rest, "/")
			rootRest = "/" + strings.TrimLeft(rootRest, "/")
		}
		sameScheme := scheme == rootScheme || (scheme == "s3a" || scheme == "s3n") && rootScheme == "s3"
		if key, below := strings.CutPrefix(rest, strings.TrimSuffix(rootRest, "/")+"/"); sameScheme && below {
			return path.Clean(key), nil
		}
		return "", &UnsupportedError{What: "data file outside of the store", Names: []string{dec}}
	}
	key := path.Join(i.Path, dec)
	if i.Path != "" && !strings.HasPrefix(key, i.Path+"/") || key == ".." || strings.HasPrefix(key, "../") {
		return "", fmt.Errorf("%w: path %q leaves the table's folder", ErrCorrupt, p)
	}
	return key, nil
}

// splitScheme splits a URL before its scheme's colon. A single letter is no scheme but a drive.
func splitScheme(u string) (scheme, rest string, ok bool) {
	i := strings.IndexByte(u, ':')
	if i < 2 {
		return "", u, false
	}
	for j := 0; j < i; j++ {
		c := u[j]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (j == 0 || c < '0' || c > '9') && (j == 0 || c != '+' && c != '-' && c != '.') {
			return "", u, false
		}
	}
	return strings.ToLower(u[:i]), u[i+1:], true
}
