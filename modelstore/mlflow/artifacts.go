package mlflow

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"modelgate/modelstore"
)

// artifact is one file of a version, as the registry lists it.
type artifact struct {
	path string // relative to the version's folder, with slashes; checked
	size int64
}

// partFolder holds what is not complete yet, inside the folder that Fetch writes.
const partFolder = ".part"

// artifactRoot is the version's folder below the server's artifact proxy.
func (s *Source) artifactRoot(ctx context.Context, mv modelVersion) (string, error) {
	uri, err := s.c.downloadURI(ctx, mv.Name, int64(mv.Version))
	if err != nil {
		return "", fmt.Errorf("ask where its files are: %w", missing(err, modelstore.ErrNoVersion))
	}
	if rest, ok := strings.CutPrefix(uri, "runs:/"); ok {
		id, below, _ := strings.Cut(rest, "/")
		if !idLike(id) {
			return "", fmt.Errorf("its files are said to be at %q, which names no run", clip(uri))
		}
		r, err := s.c.run(ctx, id)
		if err != nil {
			return "", fmt.Errorf("ask where the files of run %s are: %w", id, err)
		}
		uri = strings.TrimSuffix(r.Info.ArtifactURI, "/") + "/" + below
	}
	return s.c.proxied(uri)
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

// listFiles walks the version's folder within the limits on files, bytes and depth.
func (s *Source) listFiles(ctx context.Context, root string) ([]artifact, int64, error) {
	var files []artifact
	var total int64
	seen := map[string]bool{}
	for folders, asked := []string{""}, 0; len(folders) > 0; asked++ {
		folder := folders[0]
		folders = folders[1:]
		entries, err := s.c.list(ctx, path.Join(root, folder))
		if err != nil {
			return nil, 0, fmt.Errorf("list its files: %w", err)
		}
		for _, e := range entries {
			p := path.Join(folder, e.Path)
			if err := checkEntry(e, p); err != nil {
				return nil, 0, fmt.Errorf("list its files: %w", err)
			}
			if seen[p] {
				return nil, 0, fmt.Errorf("list its files: %q is listed twice", p)
			}
			seen[p] = true
			if len(seen) > s.o.MaxFiles {
				return nil, 0, fmt.Errorf("list its files: more than %d files and folders", s.o.MaxFiles)
			}
			if e.IsDir {
				folders = append(folders, p)
				continue
			}
			size := int64(e.Size)
			if size > s.o.MaxBytes-total {
				return nil, 0, fmt.Errorf("list its files: more than %d bytes together", s.o.MaxBytes)
			}
			total += size
			files = append(files, artifact{path: p, size: size})
		}
	}
	if len(files) == 0 {
		return nil, 0, errors.New("list its files: there are none")
	}
	// The large ones first, so that the small ones fill the gaps.
	slices.SortStableFunc(files, func(a, b artifact) int { return int(max(-1, min(1, b.size-a.size))) })
	return files, total, nil
}

func checkEntry(e fileInfo, p string) error {
	if err := checkName(e.Path); err != nil {
		return err
	}
	switch {
	case p == partFolder || strings.HasPrefix(p, partFolder+"/"):
		return fmt.Errorf("the name %q is taken", partFolder)
	case len(p) > maxPathLen || strings.Count(p, "/") >= maxDepth:
		return fmt.Errorf("%.60q... is too long or too deep", p)
	case !filepath.IsLocal(filepath.FromSlash(p)):
		return fmt.Errorf("%q leads out of the folder", p)
	case e.Size < 0:
		return fmt.Errorf("%q is listed with %d bytes", p, e.Size)
	}
	return nil
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
func (c *client) fileURL(r route, mv modelVersion, root string, a artifact) *url.URL {
	if r == routeVersion {
		u := c.base.JoinPath("model-versions/get-artifact")
		u.RawQuery = url.Values{"name": {mv.Name}, "version": {fmt.Sprint(int64(mv.Version))}, "path": {a.path}}.Encode()
		return u
	}
	parts := strings.Split(path.Join(root, a.path), "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return c.base.JoinPath("api/2.0/mlflow-artifacts/artifacts").JoinPath(parts...)
}
