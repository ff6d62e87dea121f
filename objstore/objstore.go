// Package objstore is the smallest object store that a Delta table needs: whole-object reads and writes, a ranged
// read, a conditional create and an ordered listing. It stands between delta (which does no I/O of its own) and the
// outside: local disk here, cloud stores in packages below this one, so that this root imports the standard library
// only.
package objstore

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// ErrNotFound is returned (wrapped, with the key) when an object does not exist.
var ErrNotFound = errors.New("object not found")

// ErrExists is returned (wrapped, with the key) by PutIfAbsent when the object exists already. It is a definite
// answer: the caller's bytes were not written.
var ErrExists = errors.New("object already exists")

// ErrAmbiguous is returned (wrapped) by a put whose outcome is unknown: the bytes may or may not be there. The
// caller settles it by reading back.
var ErrAmbiguous = errors.New("outcome of the write is unknown")

// What a store of another machine answers when a call is pointless to repeat as it is, or was repeated in vain. They
// are wrapped, with the operation, the key and the server's own words.
var (
	// ErrDenied: the credentials are valid, but may not do this.
	ErrDenied = errors.New("denied")
	// ErrCredentials: there are no credentials, or they are wrong or have expired.
	ErrCredentials = errors.New("no valid credentials")
	// ErrNoBucket: the bucket does not exist.
	ErrNoBucket = errors.New("no such bucket")
	// ErrUnavailable: the server could not be reached, failed or asked to slow down, more often than is tried.
	ErrUnavailable = errors.New("storage is not available")
)

// Info describes one object.
type Info struct {
	Key  string // slash-separated, relative to the store's root, never with a leading slash
	Size int64  // bytes
	// ModTime is the last modification, as the source of the object had it where Put was given one. A store whose
	// server cannot list that (S3) lists the time of writing: where it matters, Stat tells.
	ModTime time.Time
	ETag    string // changes whenever the content changes, "" where the store has none
}

// SameContent reports whether two descriptions of a key, listed or not, are of the same content.
func SameContent(a, b Info) bool {
	return a.Size == b.Size && a.ETag == b.ETag && (a.ETag != "" || a.ModTime.Equal(b.ModTime))
}

// PutOptions are optional properties of a new object.
type PutOptions struct {
	// ModTime is kept as the object's last-modified time (file time on local disk, metadata elsewhere). Zero: now.
	ModTime time.Time
}

// Store holds objects under keys. Every method may block and honours ctx; all are safe for concurrent use. A write is
// visible whole or not at all, and durable when the method returns. Returned errors name the key.
type Store interface {
	// Get opens an object for reading from its beginning; the caller closes the reader. ErrNotFound if missing.
	Get(ctx context.Context, key string) (io.ReadCloser, Info, error)
	// GetRange reads n bytes from offset (fewer only at the end of the object). A negative offset counts from the
	// end, as a Parquet footer wants; n < 0 reads to the end.
	GetRange(ctx context.Context, key string, offset, n int64) ([]byte, error)
	// Stat describes an object. ErrNotFound if missing.
	Stat(ctx context.Context, key string) (Info, error)
	// Put creates or replaces an object with everything r yields.
	Put(ctx context.Context, key string, r io.Reader, opts PutOptions) error
	// PutIfAbsent creates an object; if one exists under the key it returns ErrExists and changes nothing. Of any
	// number of concurrent callers exactly one wins. Any other error but context cancellation before the request
	// may be ErrAmbiguous.
	PutIfAbsent(ctx context.Context, key string, data []byte) error
	// List yields the objects whose key begins with prefix and is greater than startAfter, in ascending byte order
	// of the key. Folders are not objects; a missing prefix yields nothing.
	List(ctx context.Context, prefix, startAfter string) iter.Seq2[Info, error]
	// Delete removes an object; a missing one is no error.
	Delete(ctx context.Context, key string) error
	// URL names the store's root for people and for engines: "file:///lake", "s3://bucket/prefix".
	URL() string
}

// LocalPather is implemented by a store whose objects are plain files. An engine that reads and writes files itself
// uses it to avoid a copy; it must then write to a name nobody knows yet and call Sync.
type LocalPather interface {
	// LocalPath is the absolute file path of a key (whether or not it exists).
	LocalPath(key string) string
	// Sync makes finished files and the folders that hold them durable.
	Sync(ctx context.Context, keys ...string) error
}

// Keeper is implemented by a store that keeps copies of objects in local files, so that what is read again costs no
// request. It may keep only objects that are never replaced.
type Keeper interface {
	// LocalCopy puts the content of an object of the given size at a local path that does not exist. The file is the
	// caller's, who may delete but not change it.
	LocalCopy(ctx context.Context, key string, size int64, path string) error
	// Keep offers a local file with the content of an object that was just put. The file may be shared from then on
	// and must not change; errors only mean that nothing is kept.
	Keep(key, path string) error
}

// Hinter is implemented by a store in which it is dear to make an object durable.
type Hinter interface {
	// PutHint is PutIfAbsent for an object that its readers can do without and check: after a power cut it may be missing
	// or torn.
	PutHint(ctx context.Context, key string, data []byte) error
}

// Sweeper is implemented by a store in which a writer that was killed in the middle of a Put leaves something behind
// that List does not show.
type Sweeper interface {
	// Sweep removes what was left behind under keys that begin with prefix and was last written before the given
	// time, or only lists it where dryRun is set. A Put that is still under way has written later than a time well in
	// the past. The keys of the result are good for reports only.
	Sweep(ctx context.Context, prefix string, before time.Time, dryRun bool) ([]Info, error)
}

// ErrNoPresign is returned by a Presigner that cannot sign with the credentials it has.
var ErrNoPresign = errors.New("these credentials cannot sign URLs")

// Presigner is implemented by a store whose server lets others read an object by a URL alone, for a while.
type Presigner interface {
	// Presign makes a URL that reads the object (GET, in ranges too) until lifetime has passed. Whether the object exists
	// is not looked at. ErrNoPresign where the credentials do not allow it.
	Presign(ctx context.Context, key string, lifetime time.Duration) (string, error)
}
