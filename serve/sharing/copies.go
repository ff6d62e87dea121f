package sharing

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/singleflight"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/objstore"
)

// copies are rewritten files: a data file without the rows that its deletion vector marks or that stand for deletions, or
// the changes of one version. Each is a folder <table>/<id> with Parquet files and an index; the id says what it was made
// from, so it is never changed, only forgotten: those that were not asked for longest go first, but never one whose URLs
// may still be good.
type copies struct {
	dir   string
	limit int64
	now   func() time.Time
	store *objstore.Local
	group singleflight.Group
	slots chan struct{} // files that are written at a time

	mu    sync.Mutex
	added int64 // bytes since the folder was last measured
}

const copyIndex = "index.json"

// copyFile is one file of a copy.
type copyFile struct {
	Key             string             `json:"-"`    // below the folder of copies
	Path            string             `json:"path"` // below the copy's own
	PartitionValues map[string]*string `json:"partition_values"`
	Size            int64              `json:"size"`
	Records         int64              `json:"records"`
	Stats           string             `json:"stats"`
}

func newCopies(dir string, limit int64, now func() time.Time) (*copies, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("rewritten files of shares: %w", err)
	}
	store, err := objstore.NewLocal(dir)
	if err != nil {
		return nil, fmt.Errorf("rewritten files of shares: %w", err)
	}
	return &copies{dir: dir, limit: limit, now: now, store: store, slots: make(chan struct{}, runtime.NumCPU())}, nil
}

// copyID names a copy by everything that its rows depend on.
func copyID(parts ...string) string {
	sum := sha256.Sum256([]byte("1\x00" + strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:16])
}

// get gives the files of a copy, and makes it if there is none. info says where the rows lie and how they are written;
// rows opens them.
func (c *copies) get(ctx context.Context, table, id string, info delta.TableInfo, rows func(context.Context) (delta.Rows, error)) ([]copyFile, error) {
	done := c.group.DoChan(table+"/"+id, func() (any, error) {
		if files, err := c.load(table, id); !errors.Is(err, fs.ErrNotExist) {
			return files, err
		}
		// Others may wait for it, or ask again: it goes on where the first one leaves.
		ctx := context.WithoutCancel(ctx)
		c.slots <- struct{}{}
		defer func() { <-c.slots }()
		if err := c.write(ctx, table, id, info, rows); err != nil {
			return nil, err
		}
		return c.load(table, id)
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case r := <-done:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.([]copyFile), nil
	}
}

// load reads the index of a copy and notes that it was of use.
func (c *copies) load(table, id string) ([]copyFile, error) {
	dir := filepath.Join(c.dir, table, id)
	b, err := os.ReadFile(filepath.Join(dir, copyIndex))
	if err != nil {
		return nil, err
	}
	var files []copyFile
	if err := json.Unmarshal(b, &files); err != nil {
		return nil, fmt.Errorf("rewritten file %s: %w", dir, err)
	}
	for i := range files {
		files[i].Key = table + "/" + id + "/" + files[i].Path
	}
	now := c.now()
	return files, os.Chtimes(dir, now, now)
}

func (c *copies) write(ctx context.Context, table, id string, info delta.TableInfo, open func(context.Context) (delta.Rows, error)) (err error) {
	rows, err := open(ctx)
	if err != nil {
		return err
	}
	temp := table + "/.tmp-" + uuid.NewString()
	dir := filepath.Join(c.dir, filepath.FromSlash(temp))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	info.Store, info.Path = c.store, temp
	written, err := delta.PureGo().FileWriter.Write(ctx, info, delta.WriteRequest{Rows: rows})
	if err != nil {
		return err
	}
	files, size := []copyFile{}, int64(0)
	for _, f := range written {
		files = append(files, copyFile{Path: strings.TrimPrefix(f.Key, temp+"/"), PartitionValues: f.PartitionValues, Size: f.Size, Records: f.NumRecords, Stats: f.Stats.JSON()})
		size += f.Size
	}
	index, err := json.Marshal(files)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, copyIndex), index, 0o600); err != nil {
		return err
	}
	if err := os.Rename(dir, filepath.Join(c.dir, table, id)); err != nil && !errors.Is(err, fs.ErrExist) {
		return err // another process may have been faster; its copy has the same rows
	}
	c.grown(size)
	return nil
}

// grown forgets copies when enough has been added.
func (c *copies) grown(size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := c.added == 0
	if c.added += size + 1; first || c.added > c.limit/10 {
		c.added = 1
		c.shrink()
	}
}

func (c *copies) shrink() {
	type entry struct {
		dir  string
		size int64
		at   time.Time
	}
	var all []entry
	var total int64
	dirs, _ := filepath.Glob(filepath.Join(c.dir, "*", "*"))
	for _, d := range dirs {
		st, err := os.Stat(d)
		if err != nil {
			continue
		}
		e := entry{dir: d, at: st.ModTime()}
		_ = filepath.WalkDir(d, func(_ string, f fs.DirEntry, err error) error {
			if err == nil && !f.IsDir() {
				if info, err := f.Info(); err == nil {
					e.size += info.Size()
				}
			}
			return nil
		})
		all, total = append(all, e), total+e.size
	}
	slices.SortFunc(all, func(a, b entry) int { return a.at.Compare(b.at) })
	for _, e := range all {
		left := strings.HasPrefix(filepath.Base(e.dir), ".tmp-")
		if total <= c.limit && !left || c.now().Sub(e.at) < 2*URLLifetime {
			continue
		}
		if os.RemoveAll(e.dir) == nil {
			total -= e.size
		}
	}
}
