//go:build unix

package objstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

var errNotDir error = syscall.ENOTDIR

// isNotDir reports that a file stands where a folder of the key should be, so that the key cannot exist.
func isNotDir(err error) bool { return errors.Is(err, syscall.ENOTDIR) }

// etag adds the inode to time and size: a Put that keeps the source's time always makes a new file.
func etag(st fs.FileInfo) string {
	var ino uint64
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		ino = uint64(s.Ino)
	}
	return fmt.Sprintf("%x-%x-%x", st.ModTime().UnixNano(), st.Size(), ino)
}

func syncFolder(d *os.File) error { return d.Sync() }
