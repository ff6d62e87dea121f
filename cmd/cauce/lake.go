package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cauce-data/cauce/connect/avro"
	"github.com/cauce-data/cauce/connect/csv"
	"github.com/cauce-data/cauce/connect/jsonl"
	"github.com/cauce-data/cauce/connect/parquet"
	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/engine/duckdb"
	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

func bufferDir(l *pipeline.Lake) string   { return filepath.Join(l.StateDir(), "buffer") }
func spoolDir(l *pipeline.Lake) string    { return filepath.Join(l.StateDir(), "spool") }
func produceDir(l *pipeline.Lake) string  { return filepath.Join(l.StateDir(), "produce") }
func runsDir(l *pipeline.Lake) string     { return filepath.Join(l.StateDir(), "runs") }
func tempDir(l *pipeline.Lake) string     { return filepath.Join(l.StateDir(), "tmp") }
func historyFile(l *pipeline.Lake) string { return filepath.Join(l.StateDir(), "history") }

// indexDir is the folder of the index of keys, "" if it is in memory only.
func indexDir(l *pipeline.Lake) string {
	if l.Index.DiskBytes == 0 {
		return ""
	}
	return filepath.Join(l.StateDir(), "index")
}

// loadLake reads the lake file that the flags name.
func (a *app) loadLake() (*pipeline.Lake, error) { return a.loadLakeFile(a.lakeFile, a.root) }

func (a *app) loadLakeFile(file, root string) (*pipeline.Lake, error) {
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return nil, usagef("lake file %s: it does not exist; cauce init DIR makes one, --lake FILE names another", file)
	}
	parser, err := duckdb.NewParser()
	if err != nil {
		return nil, err
	}
	defer parser.Close()
	lake, err := pipeline.Load(file, pipeline.LoadOptions{Parser: parser, Root: root, Env: os.LookupEnv})
	if err != nil {
		return nil, &usageError{err: err}
	}
	a.lake.Store(lake)
	return lake, nil
}

// lake is an open lake: what every command that touches data works with. Close it.
type lake struct {
	*pipeline.Lake
	store  objstore.Store
	engine *duckdb.Engine
	ingest *ingest.Lake // nil: there is no lake file; tables have paths
	watch  *monitor     // nil: nobody watches
}

func (a *app) openLake(ctx context.Context) (*lake, error) {
	l, err := a.loadLake()
	if err != nil {
		return nil, err
	}
	return a.open(ctx, l)
}

// openWatched is openLake for a process that is watched: it serves metrics on listen, if that is not "", until the lake is
// closed. inLake tells that the lake file may name the address.
func (a *app) openWatched(ctx context.Context, listen string, inLake bool) (*lake, error) {
	l, err := a.loadLake()
	if err != nil {
		return nil, err
	}
	if listen == "" && inLake {
		listen = l.Metrics.Listen
	}
	if a.watch, err = a.monitor(listen); err != nil {
		return nil, err
	}
	out, err := a.open(ctx, l)
	if err != nil {
		a.watch.Close()
		return nil, err
	}
	out.watch = a.watch
	return out, nil
}

// open wires the packages for a lake file: the store it names, the engine, the reader of its files.
func (a *app) open(ctx context.Context, l *pipeline.Lake) (*lake, error) {
	store, err := openStore(ctx, l.Storage, l)
	if err != nil {
		return nil, err
	}
	hook, err := faultHook(os.Getenv)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(tempDir(l), 0o755); err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	options := duckdb.Options{TempDir: tempDir(l)}
	if n := l.Engine.MemoryLimit; n > 0 {
		options.MemoryLimit = strconv.FormatInt(n, 10) + "B"
	}
	engine, err := duckdb.Open(options)
	if err != nil {
		return nil, err
	}
	text := csv.NewOpener(csv.Options{
		TempDir: tempDir(l),
		RawFields: func(s *pipeline.Source) []string {
			plan, err := l.Plan(s.Name)
			if err != nil {
				return nil
			}
			return plan.RawFields
		},
	})
	decoders, err := a.decoders(l)
	if err != nil {
		return nil, errors.Join(err, engine.Close())
	}
	in, err := ingest.New(ingest.Config{
		Lake: l, Decoders: decoders, Store: store, Engine: engine, Opener: openers{
			pipeline.FormatCSV:     text,
			pipeline.FormatJSON:    jsonl.Opener{Stager: text},
			pipeline.FormatJSONL:   jsonl.Opener{Stager: text},
			pipeline.FormatParquet: parquet.Opener{Stager: text},
			pipeline.FormatAvro:    avro.Opener{Stager: text},
		},
		IndexDir: indexDir(l), EngineInfo: engineInfo(), Log: a.logger(), Hook: hook, Observe: a.watch.observer(),
	})
	if err != nil {
		return nil, errors.Join(err, engine.Close())
	}
	a.watch.countRequests(store)
	return &lake{Lake: l, store: store, engine: engine, ingest: in}, nil
}

// decoders makes a decoder for each source whose messages have their schemas in a registry. None is asked yet.
func (a *app) decoders(l *pipeline.Lake) (map[string]ingest.Decoder, error) {
	out := map[string]ingest.Decoder{}
	for _, s := range l.Sources {
		if s.Kafka == nil || s.Kafka.Registry == nil {
			continue
		}
		r := s.Kafka.Registry
		d, err := avro.NewDecoder(avro.RegistryOptions{URL: r.URL, User: r.User, Password: r.Password, CAFile: r.CAFile, Keys: s.Kafka.Tombstones != nil, Log: a.logger()})
		if err != nil {
			return nil, usagef("source %s: %w", s.Name, err)
		}
		out[s.Name] = d
	}
	return out, nil
}

// openers makes files ready by the format of their source.
type openers map[string]ingest.FileOpener

func (o openers) Open(ctx context.Context, store objstore.Store, info objstore.Info, src *pipeline.Source) (*pipeline.RawFile, error) {
	opener := o[src.Format]
	if opener == nil {
		return nil, fmt.Errorf("%s: BUG: nothing reads files of format %q", info.Key, src.Format)
	}
	return opener.Open(ctx, store, info, src)
}

func engineInfo() string { return "Cauce/" + version }

func (l *lake) Close() error {
	l.watch.Close()
	return l.engine.Close()
}

// deltaOptions are for tables that are opened by path, outside any lake.
func deltaOptions() *delta.Options { return &delta.Options{EngineInfo: engineInfo()} }

// shellQuote makes a word that a POSIX shell reads back as s.
func shellQuote(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./:=@%+,", r))
	}) {
		return s
	}
	if !strings.ContainsAny(s, "\"$`\\!\n") {
		return `"` + s + `"`
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
