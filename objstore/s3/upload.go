package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/objstore/internal/remote"
)

// Put writes an object, in parts if it is large. The SDK's own uploader is not stable yet, and the one before it is
// given up by its makers; what is needed of them is this file.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, opts objstore.PutOptions) error {
	if err := objstore.CheckKey("put", key); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	metadata := map[string]string{}
	if !opts.ModTime.IsZero() {
		metadata[remote.ModTimeKey] = remote.FormatModTime(opts.ModTime)
	}
	first, err := readPart(r, partBytes)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("put %s: %w", key, err)
	}
	if err != nil {
		_, err := s.client.PutObject(ctx, s.putInput(key, first, metadata))
		return s.explain(ctx, "put", key, err)
	}
	return s.putParts(ctx, key, first, r, metadata)
}

// readPart reads n bytes; with fewer comes io.EOF.
func readPart(r io.Reader, n int) ([]byte, error) {
	buf := make([]byte, n)
	got, err := io.ReadFull(r, buf)
	if errors.Is(err, io.ErrUnexpectedEOF) && got < n {
		err = io.EOF
	}
	return buf[:got], err
}

// partSize is the size of the part with a number from 1: 8 MiB up to number 1,000, then 64, and 1 GiB from 5,000 on.
func partSize(number int32) int {
	switch {
	case number <= 1000:
		return partBytes
	case number <= 5000:
		return 8 * partBytes
	}
	return 128 * partBytes
}

// uploadKey names the metadata by which an upload recognizes its own object.
const uploadKey = "cauce-upload"

func (s *Store) putParts(ctx context.Context, key string, first []byte, r io.Reader, metadata map[string]string) (err error) {
	metadata[uploadKey] = uuid.NewString()
	in := &s3.CreateMultipartUploadInput{
		Bucket: &s.bucket, Key: s.name(key), Metadata: metadata, ServerSideEncryption: types.ServerSideEncryption(s.o.SSE),
	}
	if s.o.KMSKey != "" {
		in.SSEKMSKeyId = &s.o.KMSKey
	}
	if s.client.Options().RequestChecksumCalculation != aws.RequestChecksumCalculationWhenRequired {
		in.ChecksumAlgorithm = types.ChecksumAlgorithmCrc32 // what the SDK sends with each part
	}
	up, err := s.client.CreateMultipartUpload(ctx, in)
	if err != nil {
		return s.explain(ctx, "put", key, err)
	}
	defer func() {
		if err != nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
			defer cancel()
			_ = s.abort(ctx, *s.name(key), up.UploadId) // else Sweep does
		}
	}()
	parts, err := s.sendParts(ctx, key, up.UploadId, first, r)
	if err != nil {
		return err
	}
	_, err = s.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &s.bucket, Key: s.name(key), UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	})
	if err == nil {
		return nil
	}
	// If the answer to a completion is lost, its repetition is told that there is no such upload.
	out, herr := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.bucket, Key: s.name(key)})
	if herr == nil && out.Metadata[uploadKey] == metadata[uploadKey] {
		return nil
	}
	return s.explain(ctx, "put", key, err)
}

// sendParts sends the parts, several at once.
func (s *Store) sendParts(ctx context.Context, key string, upload *string, part []byte, r io.Reader) ([]types.CompletedPart, error) {
	var mu sync.Mutex
	var parts []types.CompletedPart
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(partsAtOnce)
	var readErr error
	for number := int32(1); readErr == nil && gctx.Err() == nil && (len(part) > 0 || number == 1); number++ {
		mu.Lock()
		parts = append(parts, types.CompletedPart{PartNumber: aws.Int32(number)})
		mu.Unlock()
		data := part // the loop reads the next one meanwhile
		g.Go(func() error {
			out, err := s.client.UploadPart(gctx, &s3.UploadPartInput{
				Bucket: &s.bucket, Key: s.name(key), UploadId: upload, PartNumber: aws.Int32(number),
				Body: bytes.NewReader(data), ContentLength: aws.Int64(int64(len(data))),
			})
			if err != nil {
				return s.explain(gctx, "put", key, err)
			}
			mu.Lock()
			defer mu.Unlock()
			p := &parts[number-1]
			p.ETag, p.ChecksumCRC32, p.ChecksumCRC32C, p.ChecksumCRC64NVME = out.ETag, out.ChecksumCRC32, out.ChecksumCRC32C, out.ChecksumCRC64NVME
			return nil
		})
		var next []byte
		if next, readErr = readPart(r, partSize(number+1)); errors.Is(readErr, io.EOF) {
			if len(next) == 0 {
				break
			}
			readErr = nil
		}
		part = next
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if readErr != nil && !errors.Is(readErr, io.EOF) {
		return nil, fmt.Errorf("put %s: %w", key, readErr)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("put %s: %w", key, err)
	}
	return parts, nil
}

func (s *Store) abort(ctx context.Context, name string, upload *string) error {
	_, err := s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &s.bucket, Key: &name, UploadId: upload})
	var gone *types.NoSuchUpload
	if errors.As(err, &gone) {
		return nil
	}
	return err
}
