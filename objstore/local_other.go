//go:build !unix

package objstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

var errNotDir = errors.New("not a folder")

func isNotDir(err error) bool { return errors.Is(err, errNotDir) }

func etag(st fs.FileInfo) string {
	return fmt.Sprintf("%x-%x", st.ModTime().UnixNano(), st.Size())
}

// syncFolder has nothing to do where folders cannot be opened for syncing; the file system's journal orders entries.
func syncFolder(*os.File) error { return nil }
