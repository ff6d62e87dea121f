package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/objstore/internal/remote"
)

func status(err error) int {
	var resp *awshttp.ResponseError
	if errors.As(err, &resp) {
		return resp.HTTPStatusCode()
	}
	return 0
}

func isStatus(err error, code int) bool { return status(err) == code }

func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// outcome tells what an error says about a conditional create. Only an answer by which the server refuses proves that
// nothing was written.
func outcome(err error) remote.Outcome {
	switch c, st := code(err), status(err); {
	case st == http.StatusPreconditionFailed:
		return remote.Exists
	case st == http.StatusConflict, c == "SlowDown", st == http.StatusTooManyRequests:
		// 409 is ConditionalRequestConflict: another conditional write of the key was under way.
		return remote.Again
	case c == "RequestTimeout": // the server got no whole body
		return remote.Again
	case st >= 400 && st < 500:
		return remote.Refused
	}
	return remote.Unknown
}

// explain puts an error of the SDK into the words of objstore, with what to do about it.
func (s *Store) explain(ctx context.Context, op, key string, err error) error {
	if err == nil {
		return nil
	}
	what := op + " " + s.URL()
	if key != "" {
		what = op + " " + key
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", what, ctx.Err())
	}
	c, st := code(err), status(err)
	if op == "stat" && st >= 400 && st < 500 {
		// The answer to HEAD has no body that would tell a missing object from a missing bucket or bad credentials.
		if _, lerr := s.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: s.name(key), MaxKeys: aws.Int32(1)}); lerr != nil && code(lerr) != "AccessDenied" {
			return s.explain(ctx, "look for", key, lerr)
		}
	}
	switch {
	case c == "NoSuchBucket":
		return s.noBucket(what, err)
	case c == "InvalidAccessKeyId", c == "SignatureDoesNotMatch", c == "InvalidToken", c == "InvalidClientTokenId", c == "UnrecognizedClientException",
		c == "XAdminUserNotFound": // versitygw's word for it
		return fmt.Errorf("%s: %w: the server does not accept them: %w", what, objstore.ErrCredentials, err)
	case c == "NoSuchKey", st == http.StatusNotFound:
		return fmt.Errorf("%s: %w", what, objstore.ErrNotFound)
	case c == "ExpiredToken", c == "ExpiredTokenException", c == "TokenRefreshRequired":
		return fmt.Errorf("%s: %w: they have expired; sign in again: %w", what, objstore.ErrCredentials, err)
	case st == http.StatusForbidden, c == "AccessDenied", st == http.StatusUnauthorized:
		return fmt.Errorf("%s in %s: %w to %s: %s: %w", what, s.URL(), objstore.ErrDenied, s.who, s.needs(op, key), err)
	case c == "PermanentRedirect", c == "AuthorizationHeaderMalformed", st == http.StatusMovedPermanently:
		return fmt.Errorf("%s: the bucket %s is in another region: set s3.region in the lake file or AWS_REGION: %w", what, s.bucketURL(), err)
	case st == 0 || st >= 500 || c == "SlowDown" || st == http.StatusTooManyRequests:
		return fmt.Errorf("%s in %s: %w: %w", what, s.URL(), objstore.ErrUnavailable, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// needs says which right an operation lacks, and what to do about it.
func (s *Store) needs(op, key string) string {
	bucket := "arn:aws:s3:::" + s.bucket
	object := bucket + "/" + *s.name(key)
	const remedy = "; use a role that has it (store.role, AWS_PROFILE) or grant it"
	switch op {
	case "list":
		return "it needs s3:ListBucket on " + bucket + " for the prefix " + *s.name(key) + remedy
	case "sweep":
		return "it needs s3:ListBucketMultipartUploads on " + bucket + " and s3:AbortMultipartUpload on its objects" + remedy
	case "delete":
		return "it needs s3:DeleteObject on " + object + ": only maintenance should delete" + remedy
	case "put":
		return "it needs s3:PutObject on " + object + remedy
	}
	return "it needs s3:GetObject on " + object + " (and s3:ListBucket, without which a missing object is denied too)" + remedy
}

func (s *Store) noBucket(what string, err error) error {
	return fmt.Errorf("%s: %w: %s; make it first, or correct the storage URL: %w", what, objstore.ErrNoBucket, s.bucketURL(), err)
}
