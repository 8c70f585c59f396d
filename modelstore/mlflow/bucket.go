package mlflow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"modelgate/s3"
)

// routeS3 leads to the object store itself, past the registry.
const routeS3 route = "s3"

// bucketPlace is a folder in a bucket of the configured S3 endpoint. A file is what its ETag in the listing says: one that changes
// while it is fetched is an error, never a mixture.
type bucketPlace struct {
	c      *client
	store  *s3.Endpoint
	folder s3.Name
}

func (*bucketPlace) first() route { return routeS3 }

// bucket is the folder that an s3:// address names, if files may be fetched from there: the registry isn't trusted with our keys.
func (s *Source) bucket(uri string) (place, error) {
	if s.o.S3 == nil {
		return nil, fmt.Errorf("its files are in S3, at %q, and no S3 endpoint is configured: set s3.endpoint (MLFLOW_S3_ENDPOINT_URL), "+
			"s3.access_key (AWS_ACCESS_KEY_ID), s3.secret_key (AWS_SECRET_ACCESS_KEY) and s3.artifact_prefixes, "+
			"or start mlflow server with --serve-artifacts and publish again", clip(uri))
	}
	folder, err := s3.ParseURI(strings.TrimSuffix(uri, "/"))
	if err != nil {
		return nil, fmt.Errorf("its files are said to be at %q: %w", clip(uri), err)
	}
	if !s.o.S3Prefixes.ContainFolder(folder) {
		return nil, fmt.Errorf("its files are in S3, at %q, from where none may be fetched: to allow it, add %q, or a folder above it, to s3.artifact_prefixes",
			clip(uri), clip(folder.Bucket+"/"+folder.Key))
	}
	return &bucketPlace{c: s.c, store: s.o.S3, folder: folder}, nil
}

// files lists what is below the folder. Names are the publisher's: they are checked like those of the registry.
func (b *bucketPlace) files(ctx context.Context) ([]artifact, int64, error) {
	var l *listing
	err := b.c.retry(ctx, func() error {
		l = newListing(b.c.o)
		return b.sort(b.store.List(ctx, b.folder, func(e s3.Entry) error { return b.add(l, e) }))
	})
	if err != nil {
		return nil, 0, fmt.Errorf("list its files: %w", err)
	}
	return l.all()
}

func (b *bucketPlace) add(l *listing, e s3.Entry) error {
	if l.entries++; l.entries > l.maxFiles {
		return fmt.Errorf("more than %d objects", l.maxFiles)
	}
	name, marker := strings.CutSuffix(e.Path, "/")
	if name == "" && e.Size == 0 {
		return nil // the folder itself: tools that show folders make such objects
	}
	for part := range strings.SplitSeq(name, "/") {
		if err := checkName(part); err != nil {
			return err
		}
	}
	if err := l.addFolders(e.Path); err != nil || marker && e.Size == 0 {
		return err
	}
	if marker {
		return fmt.Errorf("%q is listed as a folder with %d bytes", clip(e.Path), e.Size)
	}
	return l.add(artifact{path: e.Path, size: e.Size, etag: e.ETag}, false)
}

// open asks for what is missing, on the condition that the file is still the one that was listed.
func (b *bucketPlace) open(ctx context.Context, d *downloader, p *part, a artifact) (io.ReadCloser, error) {
	o, err := b.store.Read(ctx, b.folder.Join(a.path), p.have, a.etag)
	if err != nil {
		if ctx.Err() != nil { // the downloader's own limit, unless the caller has left, which it notices itself
			return nil, transient(err)
		}
		if errors.Is(err, s3.ErrChanged) && p.have > 0 { // so that the next fetch begins anew
			return nil, errors.Join(err, d.restart(p, note{Route: routeS3}))
		}
		return nil, b.sort(err)
	}
	if o.Size != a.size {
		_ = o.Close()
		return nil, fmt.Errorf("the object store sends %d bytes of a file that it lists with %d", o.Size, a.size)
	}
	if p.have == 0 {
		if err := d.restart(p, note{Route: routeS3, Validator: a.etag}); err != nil {
			_ = o.Close()
			return nil, err
		}
	}
	return o, nil
}

// sort marks what is worth another try.
func (b *bucketPlace) sort(err error) error {
	if errors.Is(err, s3.ErrUnavailable) {
		return transient(err)
	}
	return err
}
