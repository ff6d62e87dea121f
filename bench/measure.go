package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// usage is what one process cost, by the operating system's accounting.
type usage struct {
	Wall   time.Duration
	CPU    time.Duration // user and system, of the process and the children it waited for
	PeakMB float64       // greatest resident set of a single process of the tree
}

// run runs a command to its end and gives its cost and standard output. A failing command is an error with its output.
func run(dir, name string, args ...string) (usage, []byte, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	start := time.Now()
	err := cmd.Run()
	wall := time.Since(start)
	if err != nil {
		return usage{}, nil, fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(name), strings.Join(args, " "), err, tail(out.Bytes()), tail(errs.Bytes()))
	}
	u := usage{Wall: wall, CPU: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	if r, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		u.PeakMB = float64(r.Maxrss) / 1024
	}
	return u, out.Bytes(), nil
}

func tail(b []byte) []byte {
	if len(b) > 2000 {
		return b[len(b)-2000:]
	}
	return b
}

// size counts the Parquet files, deletion vectors and bytes below a table, its log included in the bytes.
func size(table string) (files int, bytes int64, err error) {
	err = filepath.WalkDir(table, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if strings.HasSuffix(p, ".crc") && strings.HasPrefix(d.Name(), ".") {
			return nil // checksum files of Hadoop are no part of a table
		}
		bytes += info.Size()
		if !strings.Contains(p, "_delta_log") {
			files++
		}
		return nil
	})
	return files, bytes, err
}

// spread is the median of some figures with the least and the greatest.
type spread struct{ Median, Min, Max float64 }

func spreadOf(v []float64) spread {
	if len(v) == 0 {
		return spread{}
	}
	s := slices.Sorted(slices.Values(v))
	m := s[len(s)/2]
	if len(s)%2 == 0 {
		m = (s[len(s)/2-1] + s[len(s)/2]) / 2
	}
	return spread{m, s[0], s[len(s)-1]}
}

func (s spread) String() string {
	return fmt.Sprintf("%s (%s–%s)", digits(s.Median), digits(s.Min), digits(s.Max))
}

// digits prints three significant digits.
func digits(f float64) string {
	switch {
	case f >= 100:
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	case f >= 1:
		return fmt.Sprintf("%.2f", f)
	}
	return fmt.Sprintf("%.3f", f)
}

// seconds of a usage, for a list.
func seconds(us []usage, f func(usage) float64) []float64 {
	var out []float64
	for _, u := range us {
		out = append(out, f(u))
	}
	return out
}

func wall(u usage) float64 { return u.Wall.Seconds() }
func cpu(u usage) float64  { return u.CPU.Seconds() }
func peak(u usage) float64 { return u.PeakMB }
