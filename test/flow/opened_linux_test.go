package flow

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// TestDateRangeOpensOnlyItsFolders watches which files the process opens, as the system sees it.
func TestDateRangeOpensOnlyItsFolders(t *testing.T) {
	l := lab.NewLake(t)
	g := lab.NewGenerator(testscale.Rand(t), 4) // 2024-08-18 to 2024-08-21, and the days after to which corrections moved rows
	for day := range 4 {
		g.History(t, l.Inbox(), day, 500, 0)
	}
	l.Run("run", "batch", "--now")
	folders, err := filepath.Glob(filepath.Join(l.Table(), "event_date=*"))
	if err != nil || len(folders) < 4 {
		t.Fatalf("%d partitions, %v", len(folders), err)
	}
	const where = "event_date BETWEEN '2024-08-19' AND '2024-08-20'"
	want := 0
	for _, r := range g.Expected {
		if day := r.TimeUS / 86_400_000_000; day == 19954 || day == 19955 {
			want++
		}
	}
	opened := watch(t, folders)
	var a answer
	l.JSON(&a, "query", "SELECT count(*) AS n, min(price) AS p FROM unified_events WHERE "+where)
	if got := fmt.Sprint(a.Rows[0]["n"]); got != fmt.Sprint(want) {
		t.Errorf("%s rows, the generator says %d", got, want)
	}
	files := opened()
	t.Logf("REPORT: %s: %d of %d files opened: %v", where, a.FilesOpened, a.FilesTotal, dirs(files))
	if got := dirs(files); !slices.Equal(got, []string{"event_date=2024-08-19", "event_date=2024-08-20"}) {
		t.Errorf("files of %v were opened", got)
	}
	if a.FilesOpened != len(files) || a.FilesTotal <= a.FilesOpened {
		t.Errorf("reported %d of %d files opened, the system saw %d", a.FilesOpened, a.FilesTotal, len(files))
	}
}

// dirs are the partitions in which files lie.
func dirs(files []string) []string {
	var list []string
	for _, f := range files {
		list = append(list, filepath.Base(filepath.Dir(f)))
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// watch begins to note which files in the folders any process opens; the function that it returns ends that and gives
// them, each once.
func watch(t *testing.T, folders []string) (opened func() []string) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	at := map[int32]string{}
	for _, f := range folders {
		wd, err := unix.InotifyAddWatch(fd, f, unix.IN_OPEN)
		if err != nil {
			t.Fatal(err)
		}
		at[int32(wd)] = f
	}
	return func() []string {
		defer unix.Close(fd)
		var files []string
		buf := make([]byte, 1<<16)
		for {
			n, err := unix.Read(fd, buf)
			if errors.Is(err, unix.EAGAIN) {
				slices.Sort(files)
				return slices.Compact(files)
			}
			if err != nil {
				t.Fatal(err)
			}
			// struct inotify_event: wd, mask, cookie, length of the name, the name padded with NUL (inotify(7)).
			for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
				wd, mask, length := int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[12:])
				name := b[unix.SizeofInotifyEvent : unix.SizeofInotifyEvent+length]
				b = b[unix.SizeofInotifyEvent+length:]
				if mask&unix.IN_ISDIR == 0 && length > 0 {
					files = append(files, filepath.Join(at[wd], string(bytes.TrimRight(name, "\x00"))))
				}
			}
		}
	}
}
