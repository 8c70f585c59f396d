// Package examples holds small bundles that are good enough to show a swap: two versions of a text classifier.
package examples

import (
	"embed"
	"io/fs"
)

//go:embed models
var files embed.FS

// Models is a folder as `modelgate serve --models` takes it: text/1 and text/2, of which the second has the better F1.
func Models() fs.FS {
	sub, err := fs.Sub(files, "models")
	if err != nil { // only a malformed name
		panic(err)
	}
	return sub
}
