package main

import (
	"context"
	"fmt"
	"time"

	"modelgate/cmd/modelgate/config"
	"modelgate/s3"
	"modelgate/server"
)

// openObjects opens the object store; nil where none is configured.
func openObjects(ctx context.Context, c *config.Loaded) (*s3.Endpoint, error) {
	o := c.S3
	if o.Endpoint == "" {
		return nil, nil //nolint:nilnil // there is none
	}
	e, err := s3.Open(ctx, s3.Options{
		Endpoint: o.Endpoint, Region: o.Region, AccessKey: o.AccessKey, SecretKey: s3.Secret(o.SecretKey), SessionToken: s3.Secret(o.SessionToken),
		CACertFile: o.CACert, Networks: o.Networks, Prefixes: o.Prefixes, ReadTimeout: time.Duration(o.Timeout),
	})
	if err != nil {
		return nil, fmt.Errorf("the settings s3.*: %w", err)
	}
	return e, nil
}

// references are what callers may name instead of sending it. Without a folder that is allowed, nothing.
func references(c *config.Loaded, objects *s3.Endpoint) server.References {
	if len(c.S3.Prefixes) == 0 {
		objects = nil
	}
	return server.References{Endpoint: objects, ClipBytes: int64(c.Video.ClipBytes), TotalBytes: int64(c.S3.Memory), Concurrent: c.S3.Concurrent}
}
