package server

import (
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// formField is the field of a form that holds the clip.
const formField = "video"

// mediaFields are the others, which a query may hold too.
func mediaFields() []string { return []string{"text", "id", "top_k"} }

const (
	partHeaderBytes = 16 << 10 // of what comes between two parts of a form, headers and all
	shortFieldBytes = 1 << 10  // of what isn't a text; the server has limits of its own
)

// form sends a multipart form. Its fields may come in any order: those that come after the clip go after it.
func (m *media) form(boundary string) error {
	parts := multipart.NewReader(io.MultiReader(m.body, strings.NewReader("\r\n"), cutShort{}), boundary)
	for {
		m.body.allow(partHeaderBytes)
		part, err := parts.NextRawPart() // NextPart would decode quoted-printable and say nothing of it
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return m.formError(err)
		}
		if err := m.part(part); err != nil {
			return err
		}
	}
	if !m.given[formField] {
		return refusal(http.StatusBadRequest, "FIELD_MISSING", "the form has no field "+formField+", which holds the clip")
	}
	if _, err := io.Copy(io.Discard, m.body); err != nil { // its end, which also shows a caller that leaves
		return m.formError(err)
	}
	return nil
}

// cutShort is what follows the body of a form, after an end of line that its last boundary may lack. A multipart.Reader would take
// the end of a body that was cut within a field's headers for that of the form, and the field would be missing.
type cutShort struct{}

func (cutShort) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func (m *media) part(part *multipart.Part) error {
	name := part.FormName()
	if encoding := part.Header.Get("Content-Transfer-Encoding"); !slices.Contains([]string{"", "binary", "8bit", "7bit"}, strings.ToLower(encoding)) {
		return refusal(http.StatusBadRequest, "BAD_FORM", fmt.Sprintf("the field %q is sent as %.40q: send it as it is", name, encoding))
	}
	if name != formField {
		m.late = m.given[formField]
		m.body.allow(int64(m.limits.MessageBytes) + partHeaderBytes)
		return m.field(name, part)
	}
	if err := m.note(name); err != nil {
		return err
	}
	if err := m.sendHeader(); err != nil {
		return err
	}
	m.body.allow(noLimit) // the upload has one
	return m.sendClip(formPart{part, m})
}

// A formPart's errors are those of the form.
type formPart struct {
	io.Reader
	m *media
}

func (p formPart) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		err = p.m.formError(err)
	}
	return n, err
}

// note refuses a field that isn't known, or that came before.
func (m *media) note(name string) error {
	switch {
	case name == "":
		return refusal(http.StatusBadRequest, "BAD_FORM", "a part of the form has no name")
	case name != formField && !slices.Contains(mediaFields(), name):
		return refusal(http.StatusBadRequest, "UNKNOWN_FIELD", fmt.Sprintf("there is no field %.80q; the fields are %s, and %s for the clip",
			name, strings.Join(mediaFields(), ", "), formField))
	case m.given[name]:
		return refusal(http.StatusBadRequest, "FIELD_TWICE", fmt.Sprintf("the field %s is given twice", name))
	}
	m.given[name] = true
	return nil
}

// field takes a field other than the clip.
func (m *media) field(name string, r io.Reader) error {
	if err := m.note(name); err != nil {
		return err
	}
	most := int64(shortFieldBytes)
	if name == "text" { // all fields together fit in a message, twice
		most = max(1, int64(m.limits.MessageBytes)/2-8*shortFieldBytes)
	}
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	switch {
	case err != nil:
		return m.formError(err)
	case int64(len(b)) > most:
		return refusal(http.StatusRequestEntityTooLarge, "FIELD_TOO_LARGE", fmt.Sprintf("the field %s has more than %d bytes", name, most))
	case !utf8.Valid(b):
		return refusal(http.StatusBadRequest, "UNREADABLE_MESSAGE", fmt.Sprintf("the field %s is not UTF-8", name))
	}
	return m.set(name, string(b))
}

func (m *media) set(name, value string) error {
	switch name {
	case "text":
		m.req.Text = &value
	case "id":
		m.req.Id = value
	case "top_k":
		k, err := strconv.ParseInt(value, 10, 32)
		if err != nil {
			return refusal(http.StatusBadRequest, "BAD_TOP_K", fmt.Sprintf("top_k is %.40q: it must be a whole number", value))
		}
		m.req.TopK = int32(k)
	}
	return nil
}

// query takes the fields of the address.
func (m *media) query(raw string) error {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return refusal(http.StatusBadRequest, "BAD_QUERY", "the query can't be read: escape what isn't a letter or digit")
	}
	if !utf8.ValidString(m.req.GetModel()) {
		return refusal(http.StatusBadRequest, "BAD_PATH", "the name of the model is not UTF-8")
	}
	for name, all := range values {
		if name == formField {
			return refusal(http.StatusBadRequest, "UNKNOWN_FIELD", "the clip can't be in the query: send it as the body, or in a form")
		}
		for _, value := range all {
			if err := m.field(name, strings.NewReader(value)); err != nil {
				return err
			}
		}
	}
	return nil
}

// formError is what becomes of an error while the form is read.
func (m *media) formError(err error) error {
	switch {
	case errors.Is(err, errTooMuch):
		return refusal(http.StatusRequestEntityTooLarge, "BAD_FORM", fmt.Sprintf("there are more than %d bytes between two fields of the form", partHeaderBytes))
	case errors.Is(err, errUploadEnded), errors.Is(err, errMediaSlow), errors.Is(err, errBodyCut):
		return m.readError(err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return refusal(http.StatusBadRequest, "BAD_FORM", "the body is not a whole multipart form: it ends before the form does")
	}
	return refusal(http.StatusBadRequest, "BAD_FORM", "the body is not a whole multipart form: "+strings.TrimPrefix(err.Error(), "multipart: "))
}
