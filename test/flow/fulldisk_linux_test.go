package flow

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// TestFullDiskCostsNothingButTime fills a small file system and then makes it larger.
func TestFullDiskCostsNothingButTime(t *testing.T) {
	prereq.Need(t, "tmpfs")
	l := lab.NewLake(t)
	disk := l.Path("disk")
	mount(t, disk, "size=64m")
	g := lab.NewGenerator(testscale.Rand(t), 3)
	first := g.History(t, disk+"/raw/batch", 0, 1000, 0)
	l.Run("run", "batch", "--root", "file:"+disk)
	before := g.Expected.Lines()
	for day := range 3 {
		g.History(t, disk+"/raw/batch", day, 8000, 0)
	}
	// The new files just fit; what would come of them does not.
	var st unix.Statfs_t
	if err := unix.Statfs(disk, &st); err != nil {
		t.Fatal(err)
	}
	used := (int64(st.Blocks) - int64(st.Bfree)) * int64(st.Bsize)
	if err := unix.Mount("tmpfs", disk, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%d", used+64<<10)); err != nil {
		t.Fatal(err)
	}
	_, errs, code := l.Try("run", "batch", "--root", "file:"+disk)
	if code != 1 || !strings.Contains(strings.ToLower(errs), "no space left") {
		t.Fatalf("exit code %d, %q", code, errs)
	}
	t.Logf("REPORT: full disk: %s", strings.TrimSpace(errs))
	rows := func() []string {
		return lab.Lines(t, []byte(l.Run("query", "SELECT * FROM unified_events", "--format", "csv", "--root", "file:"+disk)), lab.Columns)
	}
	if d := lab.Diff(before, rows()); d != "" {
		t.Errorf("on the full disk, after %s alone: %s", first.Path, d)
	}
	if err := unix.Mount("tmpfs", disk, "tmpfs", unix.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	l.Run("run", "batch", "--root", "file:"+disk)
	if d := lab.Diff(g.Expected.Lines(), rows()); d != "" {
		t.Errorf("on the larger disk: %s", d)
	}
}

func mount(t *testing.T, dir, options string) {
	t.Helper()
	if err := unix.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}
