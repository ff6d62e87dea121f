package index

import (
	"bufio"
	"container/heap"
	"errors"
	"io"
	"iter"
	"os"
)

// sortRowsMax bounds the entries that are sorted in memory at once, 24 bytes each.
const sortRowsMax = 1 << 20

// sorter sorts the entries of one segment. What is more than sortRowsMax goes to a temporary file in dir, in sorted runs.
type sorter struct {
	dir  string // "": everything stays in memory
	n    int64  // entries
	rows int    // of h at most; 0: sortRowsMax
	h    []hashed
	file *os.File
	runs []int64 // their lengths, in entries
}

// expect says how many entries are about to come.
func (s *sorter) expect(n int64) {
	if n <= sortRowsMax { // growing step by step leaves as much behind again
		s.h = make([]hashed, 0, n)
	}
}

func (s *sorter) spilled() bool { return s.file != nil }

func (s *sorter) add(e hashed) error {
	s.h = append(s.h, e)
	s.n++
	most := s.rows
	if most == 0 {
		most = sortRowsMax
	}
	if len(s.h) < most || s.dir == "" {
		return nil
	}
	return s.spill()
}

// spill writes a run.
func (s *sorter) spill() error {
	if s.file == nil {
		f, err := os.CreateTemp(s.dir, temporary+"*")
		if err != nil {
			return err
		}
		s.file = f
	}
	sortHashed(s.h)
	w := bufio.NewWriterSize(s.file, 1<<16)
	var b []byte
	for _, e := range s.h {
		b = appendEntry(b[:0], e)
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	s.runs = append(s.runs, int64(len(s.h)))
	s.h = s.h[:0]
	return w.Flush()
}

// sort ends the adding.
func (s *sorter) sort() error {
	if s.file == nil {
		sortHashed(s.h)
		return nil
	}
	if len(s.h) == 0 {
		return nil
	}
	err := s.spill()
	s.h = nil
	return err
}

// sorted yields all entries in order. It may be called again.
func (s *sorter) sorted() iter.Seq2[hashed, error] {
	return func(yield func(hashed, error) bool) {
		if s.file == nil {
			for _, e := range s.h {
				if !yield(e, nil) {
					return
				}
			}
			return
		}
		var h runHeap
		var at int64
		for _, n := range s.runs {
			r := &run{r: bufio.NewReaderSize(io.NewSectionReader(s.file, at*entryBytes, n*entryBytes), 1<<16)}
			at += n
			if err := r.next(); err != nil {
				yield(hashed{}, err)
				return
			}
			h = append(h, r)
		}
		heap.Init(&h)
		for len(h) > 0 {
			if !yield(h[0].head, nil) {
				return
			}
			switch err := h[0].next(); {
			case err == nil:
				heap.Fix(&h, 0)
			case errors.Is(err, io.EOF):
				heap.Pop(&h)
			default:
				yield(hashed{}, err)
				return
			}
		}
	}
}

func (s *sorter) close() error {
	if s.file == nil {
		return nil
	}
	return errors.Join(s.file.Close(), os.Remove(s.file.Name()))
}

// run is a sorted run of a temporary file.
type run struct {
	r    *bufio.Reader
	head hashed
}

func (r *run) next() error {
	var b [entryBytes]byte
	if _, err := io.ReadFull(r.r, b[:]); err != nil {
		return err
	}
	r.head = entryAt(b[:])
	return nil
}

type runHeap []*run

func (h runHeap) Len() int           { return len(h) }
func (h runHeap) Less(i, j int) bool { return byHash(h[i].head, h[j].head) < 0 }
func (h runHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface; runs are only taken out.
func (h *runHeap) Push(x any) { *h = append(*h, x.(*run)) }

// Pop implements heap.Interface.
func (h *runHeap) Pop() any {
	n := len(*h) - 1
	r := (*h)[n]
	*h = (*h)[:n]
	return r
}
