package local_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	"kilonova/internal/db"
	"kilonova/internal/db/dbtest"
	"kilonova/internal/image"
	"kilonova/internal/image/local"
)

// atEnd is a reader that does something when all was read.
type atEnd struct {
	io.Reader
	do func()
}

func (r *atEnd) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && r.do != nil {
		r.do()
		r.do = nil
	}
	return n, err
}

// TestCommitsLostWithTheServer loses the answer to a commit, which was carried out or not, at each write that has to do with data. No data that an image names is removed, none is
// left that no image names, and no image stays in a state in which nobody works on it.
func TestCommitsLostWithTheServer(t *testing.T) {
	for _, kind := range []db.Dialect{db.Postgres, db.MySQL} {
		t.Run(string(kind), func(t *testing.T) {
			d, cable := dbtest.Cables(t, kind)
			p := &place{t: t, dir: t.TempDir(), db: d}
			s := p.open()
			for _, done := range []bool{true, false} {
				name := map[bool]string{true: "carried out", false: "not carried out"}[done]
				t.Run(name, func(t *testing.T) { p.losing(t, s, cable, done) })
			}
			t.Run("away for a while", func(t *testing.T) {
				p.t = t
				id := p.create(s)
				data := bytes.Repeat([]byte("w"), 10_000)
				err := s.Save(t.Context(), me(), id, &atEnd{bytes.NewReader(data), func() {
					cable.Cut()
					time.AfterFunc(300*time.Millisecond, cable.Mend)
				}}, local.UploadOptions{Size: -1})
				p.holds(s, id, data, err)
			})
			p.t = t
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = p.open()
			defer func() { _ = s.Close() }()
			if n, open := len(p.files()), p.count("SELECT COUNT(*) FROM image_images"); n != open {
				t.Errorf("%d images and the files %v", open, p.files())
			}
		})
	}
}

func (p *place) count(q string) (n int) {
	p.t.Helper()
	if err := p.db.QueryRow(p.t.Context(), q).Scan(&n); err != nil {
		p.t.Fatal(err)
	}
	return n
}

// holds demands that an upload ended well and that the image gives its data.
func (p *place) holds(s *local.Service, id string, data []byte, err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal("an upload whose data had come: ", err)
	}
	if got := p.status(s, id); got != image.Active {
		p.t.Fatalf("the image is %s", got)
	}
	_, r, err := s.Download(p.t.Context(), me(), id)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
		p.t.Fatalf("the image gives %d bytes, %v", len(got), err)
	}
}

// becomes waits until an image has a status; "" is that it is not there.
func (p *place) becomes(s *local.Service, id, want string) {
	p.t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		got := ""
		if img, err := s.Get(p.t.Context(), me(), id); err == nil {
			got = img.Status
		}
		if got == want {
			return
		}
		if time.Now().After(end) {
			p.t.Fatalf("image %s is %q, want %q", id, got, want)
		}
	}
}

func (p *place) losing(t *testing.T, s *local.Service, cable *dbtest.Cable, done bool) {
	p.t = t
	data := bytes.Repeat([]byte("k"), 10_000)
	save := func(id string, at func()) error {
		return s.Save(t.Context(), me(), id, &atEnd{bytes.NewReader(data), at}, local.UploadOptions{Size: -1})
	}
	lose := func() { cable.LoseCommit(done) }

	end := p.create(s)
	p.holds(s, end, data, save(end, lose))

	begin := p.create(s)
	lose()
	if err := save(begin, nil); !db.IsAway(err) {
		t.Fatal("an upload whose beginning was lost: ", err)
	}
	p.becomes(s, begin, image.Queued)
	p.holds(s, begin, data, save(begin, nil))

	failed := p.create(s)
	err := s.Save(t.Context(), me(), failed, &atEnd{bytes.NewReader(data), lose}, local.UploadOptions{Size: 1})
	if err == nil || db.IsAway(err) {
		t.Fatal("an upload of a wrong length: ", err)
	}
	p.becomes(s, failed, image.Queued)

	lose()
	if err := s.Delete(t.Context(), me(), begin); !db.IsAway(err) {
		t.Fatal("a delete that was lost: ", err)
	}
	if done {
		p.becomes(s, begin, "")
	} else {
		p.holds(s, begin, data, nil)
		if err := s.Delete(t.Context(), me(), begin); err != nil {
			t.Fatal(err)
		}
	}

	staged := p.create(s)
	if err := s.Stage(t.Context(), me(), staged, &atEnd{bytes.NewReader(data), lose}, -1); err != nil {
		t.Fatal("data that is staged: ", err)
	}
	how := local.ImportRequest{Method: local.GlanceDirect, AllMustSucceed: true}
	lose()
	if _, err := s.Import(t.Context(), me(), staged, how, nil); !db.IsAway(err) {
		t.Fatal("an import whose acceptance was lost: ", err)
	}
	if !done {
		if _, err := s.Import(t.Context(), me(), staged, how, nil); err != nil {
			t.Fatal(err)
		}
	}
	p.becomes(s, staged, image.Active)
	p.holds(s, staged, data, nil)
	if err := s.Delete(t.Context(), me(), failed); err != nil {
		t.Fatal(err)
	}
}
