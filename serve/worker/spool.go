package worker

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// spoolMemoryMax is what a result may hold in memory while its reader is slower than its worker; beyond it the rest goes
// to a file.
const spoolMemoryMax = 4 << 20

// spool takes a result's bytes from a worker as fast as it makes them and gives them to a reader in its own time, so that
// a slow client holds no worker. It is safe for one writer and one reader.
type spool struct {
	dir string
	max int64 // bytes in the file

	mu      sync.Mutex
	more    *sync.Cond
	queue   [][]byte
	queued  int
	file    *os.File
	written int64
	read    int64
	done    bool
	closed  bool
	err     error
}

func newSpool(dir string, bytesMax int64) *spool {
	s := &spool{dir: dir, max: bytesMax}
	s.more = sync.NewCond(&s.mu)
	return s
}

// errSpoolClosed tells the writer that nobody wants more.
var errSpoolClosed = errors.New("the result is no longer wanted")

func (s *spool) put(b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errSpoolClosed
	}
	defer s.more.Signal()
	// Once bytes are in the file, later ones follow there until the reader has caught up.
	if s.file == nil || s.read == s.written {
		if s.queued+len(b) <= spoolMemoryMax || s.queued == 0 {
			s.queue = append(s.queue, b)
			s.queued += len(b)
			return nil
		}
	}
	if s.written+int64(len(b)) > s.max {
		return &Error{Kind: KindSpool, Message: fmt.Sprintf("the result is larger than the %d bytes that are kept for a client that reads slowly; ask for fewer rows, or read faster", s.max)}
	}
	if s.file == nil {
		f, err := os.CreateTemp(s.dir, "result-")
		if err != nil {
			return err
		}
		if err := os.Remove(f.Name()); err != nil { // the open file lives on, and a killed process leaves nothing
			return errors.Join(err, f.Close())
		}
		s.file = f
	}
	n, err := s.file.WriteAt(b, s.written)
	s.written += int64(n)
	return err
}

func (s *spool) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done, s.err = true, err
	s.more.Broadcast()
}

// Read implements io.Reader. The queue is older than what is in the file.
func (s *spool) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.closed:
			return 0, errSpoolClosed
		case len(s.queue) > 0:
			n := copy(p, s.queue[0])
			if s.queue[0] = s.queue[0][n:]; len(s.queue[0]) == 0 {
				s.queue = s.queue[1:]
			}
			s.queued -= n
			return n, nil
		case s.read < s.written:
			n, err := s.file.ReadAt(p[:min(int64(len(p)), s.written-s.read)], s.read)
			s.read += int64(n)
			if n > 0 {
				err = nil
			}
			return n, err
		case s.done && s.err != nil:
			return 0, s.err
		case s.done:
			return 0, io.EOF
		}
		s.more.Wait()
	}
}

func (s *spool) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed, s.queue = true, nil
	s.more.Broadcast()
	if s.file != nil {
		return s.file.Close()
	}
	return nil
}
