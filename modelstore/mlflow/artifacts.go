package mlflow

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"path"
	"path/filepath"
	"strings"

	"modelgate/modelstore"
)

// artifact is one file of a version, as the registry lists it.
type artifact struct {
	path string // relative to the version's folder, with slashes; checked
	size int64
	etag string // in a bucket, where each listing tells it; "" elsewhere
}

// A place is where the files of a version are.
type place interface {
	// files lists them, within the limits.
	files(ctx context.Context) ([]artifact, int64, error)
	// first is the route to begin with.
	first() route
	// open asks for what is missing of a file. It restarts p where the answer begins at 0.
	open(ctx context.Context, d *downloader, p *part, a artifact) (io.ReadCloser, error)
}

// proxyPlace is a folder below the registry's artifact proxy.
type proxyPlace struct {
	c    *client
	mv   modelVersion
	root string
}

func (*proxyPlace) first() route { return routeProxy }

// partFolder holds what is not complete yet, inside the folder that Fetch writes.
const partFolder = ".part"

// place asks where the files of a version are.
func (s *Source) place(ctx context.Context, mv modelVersion) (place, error) {
	uri, err := s.c.downloadURI(ctx, mv.Name, int64(mv.Version))
	if err != nil {
		return nil, fmt.Errorf("ask where its files are: %w", missing(err, modelstore.ErrNoVersion))
	}
	if rest, ok := strings.CutPrefix(uri, "runs:/"); ok {
		id, below, _ := strings.Cut(rest, "/")
		if !idLike(id) {
			return nil, fmt.Errorf("its files are said to be at %q, which names no run", clip(uri))
		}
		r, err := s.c.run(ctx, id)
		if err != nil {
			return nil, fmt.Errorf("ask where the files of run %s are: %w", id, err)
		}
		uri = strings.TrimSuffix(r.Info.ArtifactURI, "/") + "/" + below
	}
	if strings.HasPrefix(uri, "s3://") {
		return s.bucket(uri)
	}
	root, err := s.c.proxied(uri)
	return &proxyPlace{c: s.c, mv: mv, root: root}, err
}

// proxied turns an artifact URI into a path below the proxy, if the proxy is where it is.
func (c *client) proxied(uri string) (string, error) {
	rest, ok := strings.CutPrefix(uri, "mlflow-artifacts:")
	own := c.base.JoinPath("api/2.0/mlflow-artifacts/artifacts").String() + "/"
	switch {
	case strings.HasPrefix(uri, own):
		rest = strings.TrimPrefix(uri, own)
	case !ok:
		scheme, _, _ := strings.Cut(uri, ":")
		return "", fmt.Errorf("its files are in %q storage, not behind the registry's artifact proxy: start mlflow server with --serve-artifacts and publish again", clip(scheme))
	case strings.HasPrefix(rest, "//"):
		host, below, _ := strings.Cut(rest[2:], "/")
		if host != "" && host != c.base.Host {
			return "", fmt.Errorf("its files are said to be on another server, %q", clip(host))
		}
		rest = below
	}
	root := strings.Trim(rest, "/")
	for part := range strings.SplitSeq(root, "/") {
		if err := checkName(part); err != nil {
			return "", fmt.Errorf("its files are said to be at %q: %w", clip(uri), err)
		}
	}
	return root, nil
}

// checkName accepts one component of an artifact's path.
func checkName(name string) error {
	decoded, err := url.PathUnescape(name)
	switch {
	case name == "" || name == "." || name == "..", !plain(name, 255), !filepath.IsLocal(name):
		return fmt.Errorf("%q is no file name", clip(name))
	case strings.ContainsAny(name, `/\`), err == nil && (strings.ContainsAny(decoded, "/\\\x00") || decoded == ".."):
		return fmt.Errorf("%q hides a path in a file name", clip(name))
	}
	return nil
}

// files walks the folder.
func (x *proxyPlace) files(ctx context.Context) ([]artifact, int64, error) {
	l := newListing(x.c.o)
	for folders := []string{""}; len(folders) > 0; folders = folders[1:] {
		folder := folders[0]
		entries, err := x.c.list(ctx, path.Join(x.root, folder))
		if err != nil {
			return nil, 0, fmt.Errorf("list its files: %w", err)
		}
		for _, e := range entries {
			name := path.Join(folder, e.Path)
			err := checkName(e.Path)
			if err == nil {
				err = l.add(artifact{path: name, size: int64(e.Size)}, e.IsDir)
			}
			if err != nil {
				return nil, 0, fmt.Errorf("list its files: %w", err)
			}
			if e.IsDir {
				folders = append(folders, name)
			}
		}
	}
	return l.all()
}

// list asks for one folder. The proxy answers with bare names.
func (c *client) list(ctx context.Context, folder string) ([]fileInfo, error) {
	u := c.base.JoinPath("api/2.0/mlflow-artifacts/artifacts")
	u.RawQuery = url.Values{"path": {folder}}.Encode()
	var a struct {
		Files []fileInfo `json:"files"`
	}
	err := c.getURL(ctx, u, &a)
	return a.Files, err
}

// A route is one of the ways to get a file.
type route string

const (
	routeProxy   route = "proxy"   // the artifact proxy: quick, but old servers can't resume there and cut long answers
	routeVersion route = "version" // get-artifact: can be resumed on all servers, but the server first copies the file to itself
)

// fileURL is a file's address on a route.
func (x *proxyPlace) fileURL(r route, a artifact) *url.URL {
	if r == routeVersion {
		u := x.c.base.JoinPath("model-versions/get-artifact")
		u.RawQuery = url.Values{"name": {x.mv.Name}, "version": {fmt.Sprint(int64(x.mv.Version))}, "path": {a.path}}.Encode()
		return u
	}
	parts := strings.Split(path.Join(x.root, a.path), "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return x.c.base.JoinPath("api/2.0/mlflow-artifacts/artifacts").JoinPath(parts...)
}
