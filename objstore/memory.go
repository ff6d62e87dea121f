package objstore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"sort"
	"strings"
	"sync"
	"time"
)

// Memory is a store that lives as long as its process, for tests and for tables that nobody needs to keep.
type Memory struct {
	clock func() time.Time

	mu      sync.RWMutex
	objects map[string]*memoryObject
	writes  uint64
}

type memoryObject struct {
	data []byte // never modified
	info Info
}

// NewMemory gives an empty store. clock gives the times of objects; nil: time.Now.
func NewMemory(clock func() time.Time) *Memory {
	if clock == nil {
		clock = time.Now
	}
	return &Memory{clock: clock, objects: map[string]*memoryObject{}}
}

// URL is "memory:/".
func (m *Memory) URL() string { return "memory:/" }

func (m *Memory) find(ctx context.Context, op, key string) (*memoryObject, error) {
	if err := CheckKey(op, key); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%s %s: %w", op, key, err)
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	o, ok := m.objects[key]
	if !ok {
		return nil, fmt.Errorf("%s %s: %w", op, key, ErrNotFound)
	}
	return o, nil
}

// Get opens the object as it is now; a later Put does not change what is read.
func (m *Memory) Get(ctx context.Context, key string) (io.ReadCloser, Info, error) {
	o, err := m.find(ctx, "get", key)
	if err != nil {
		return nil, Info{}, err
	}
	return io.NopCloser(bytes.NewReader(o.data)), o.info, nil
}

// GetRange reads a part of the object.
func (m *Memory) GetRange(ctx context.Context, key string, offset, n int64) ([]byte, error) {
	o, err := m.find(ctx, "get", key)
	if err != nil {
		return nil, err
	}
	size := o.info.Size
	if offset < 0 {
		offset = max(0, size+offset)
	}
	if offset > size {
		return nil, fmt.Errorf("get %s: offset %d lies behind the end at %d", key, offset, size)
	}
	if n < 0 || n > size-offset {
		n = size - offset
	}
	return bytes.Clone(o.data[offset : offset+n]), nil
}

// Stat describes the object.
func (m *Memory) Stat(ctx context.Context, key string) (Info, error) {
	o, err := m.find(ctx, "stat", key)
	if err != nil {
		return Info{}, err
	}
	return o.info, nil
}

// Put reads r to its end and then sets the object.
func (m *Memory) Put(ctx context.Context, key string, r io.Reader, opts PutOptions) error {
	if err := CheckKey("put", key); err != nil {
		return err
	}
	data, err := io.ReadAll(&ctxReader{ctx, r})
	if err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.set(key, data, opts.ModTime)
	return nil
}

func (m *Memory) set(key string, data []byte, mod time.Time) {
	if mod.IsZero() {
		mod = m.clock()
	}
	m.writes++
	m.objects[key] = &memoryObject{data, Info{Key: key, Size: int64(len(data)), ModTime: mod, ETag: fmt.Sprint(m.writes)}}
}

// PutIfAbsent creates the object.
func (m *Memory) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	if err := CheckKey("put", key); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.objects[key]; ok {
		return fmt.Errorf("put %s: %w", key, ErrExists)
	}
	m.set(key, bytes.Clone(data), time.Time{})
	return nil
}

// List yields the objects that there are when it is called.
func (m *Memory) List(ctx context.Context, prefix, startAfter string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		m.mu.RLock()
		var found []Info
		for k, o := range m.objects {
			if strings.HasPrefix(k, prefix) && k > startAfter {
				found = append(found, o.info)
			}
		}
		m.mu.RUnlock()
		sort.Slice(found, func(i, j int) bool { return found[i].Key < found[j].Key })
		if err := ctx.Err(); err != nil {
			yield(Info{}, fmt.Errorf("list %s: %w", prefix, err))
			return
		}
		for _, info := range found {
			if !yield(info, nil) {
				return
			}
		}
	}
}

// Delete removes the object.
func (m *Memory) Delete(ctx context.Context, key string) error {
	if err := CheckKey("delete", key); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, key)
	return nil
}

var _ Store = (*Memory)(nil)
