package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/objstore/cache"
	"github.com/cauce-data/cauce/objstore/dynamodb"
	"github.com/cauce-data/cauce/objstore/gcs"
	"github.com/cauce-data/cauce/objstore/s3"
	"github.com/cauce-data/cauce/objstore/usage"
	"github.com/cauce-data/cauce/pipeline"
)

// isBucketURL tells whether a root lies in a bucket.
func isBucketURL(root string) bool {
	scheme, _, ok := strings.Cut(root, "://")
	return ok && (scheme == "s3" || scheme == "s3a" || scheme == "s3n" || scheme == "gs")
}

// scheme is the kind of storage of an absolute URL.
func scheme(root string) string {
	s, _, _ := strings.Cut(root, ":")
	return s
}

// openStore opens the root of a lake or table. def says how a bucket is reached; nil leaves it to the environment.
func openStore(ctx context.Context, root string, def *pipeline.Lake) (objstore.Store, error) {
	if !isBucketURL(root) {
		dir, err := objstore.FileURLPath(root)
		if err != nil {
			return nil, &usageError{err: err}
		}
		store, err := objstore.NewLocal(dir)
		if err != nil {
			return nil, fmt.Errorf("storage %s: %w", root, err)
		}
		return store, nil
	}
	o := pipeline.Store{}
	if def != nil {
		o = def.Store
	}
	var store objstore.Store
	var err error
	if strings.HasPrefix(root, "gs://") {
		store, err = gcs.Open(ctx, root, gcs.Options{Endpoint: o.Endpoint, KMSKey: o.KMSKey})
	} else {
		aws := s3.Options{
			Region: o.Region, Endpoint: o.Endpoint, Profile: o.Profile, RoleARN: o.Role, ExternalID: o.ExternalID, PathStyle: o.PathStyle,
			SSE: o.Encryption, KMSKey: o.KMSKey,
		}
		store, err = s3.Open(ctx, root, aws)
		if err == nil && o.Commit == pipeline.CommitDynamoDB {
			store, err = dynamodb.Open(ctx, store, dynamodb.Options{Table: o.CommitTable, Scheme: o.CommitScheme, AWS: aws})
		}
	}
	switch {
	case errors.Is(err, objstore.ErrCredentials), err != nil && ctx.Err() != nil:
		return nil, err
	case err != nil:
		return nil, &usageError{err: err}
	}
	if def != nil && o.CacheBytes > 0 {
		store = cache.New(store, filepath.Join(def.StateDir(), "cache"), o.CacheBytes)
	}
	return store, nil
}

// mustBeEmpty refuses a storage that holds anything, for commands that make a lake of their own there.
func (l *lake) mustBeEmpty(ctx context.Context) error {
	for f, err := range l.store.List(ctx, "", "") {
		if err != nil {
			return err
		}
		return usagef("storage %s is not empty: it holds %s; name another place with --root", l.Storage, f.Key)
	}
	return nil
}

// deleteAll removes everything from a storage that was empty before.
func (l *lake) deleteAll(ctx context.Context) error {
	for f, err := range l.store.List(ctx, "", "") {
		if err == nil {
			err = l.store.Delete(ctx, f.Key)
		}
		if err != nil {
			return fmt.Errorf("storage %s keeps what was measured: %w", l.Storage, err)
		}
	}
	return nil
}

// requests is what a store asked of its server since an earlier count; nil where it asks nothing of any.
func requests(store objstore.Store, since usage.Usage) usage.Usage {
	u := usage.Of(store)
	if u == nil {
		return nil
	}
	return u.Since(since)
}

// describeRequests is one line about them; "" if there were none.
func describeRequests(u usage.Usage) string {
	if len(u) == 0 {
		return ""
	}
	var parts []string
	for _, k := range []usage.Kind{usage.Get, usage.Head, usage.List, usage.Put, usage.Delete, usage.Commit, usage.Other} {
		if c, ok := u[k]; ok {
			parts = append(parts, fmt.Sprintf("%s %s", thousands(c.Requests), k))
		}
	}
	line := fmt.Sprintf("requests: %s; %s bytes", strings.Join(parts, ", "), thousands(u.Total().Bytes))
	if n := u.Total().Failed; n > 0 {
		line += fmt.Sprintf("; %s failed and were repeated or reported", thousands(n))
	}
	return line
}
