package api_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/auth"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/image"
	"kilonova/internal/image/remote"
)

func caller(token string) *auth.Caller {
	c, _ := tokens{}.Authenticate(context.Background(), token)
	c.Token = token
	return c
}

// TestServiceContract runs the same calls against the built-in service and against its REST API through the remote client.
func TestServiceContract(t *testing.T) {
	c := start(t, nil)
	refused := 0
	far, err := remote.New(remote.Config{Endpoint: c.url + "/v2/", Token: func(_ context.Context, c *auth.Caller, rejected string) (string, error) {
		if rejected == "" && refused == 0 {
			refused++
			return "bad", nil // the first token is refused: another is asked for
		}
		return c.Token, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]image.Service{"local": c.svc, "remote": far} {
		t.Run(name, func(t *testing.T) { contract(t, s) })
	}
	if refused != 1 {
		t.Fatal("the refused token was not tried")
	}
}

func contract(t *testing.T, s image.Service) {
	ctx, me, other, admin := t.Context(), caller("p1"), caller("p2"), caller("admin")
	want := func(err error, k fault.Kind) {
		t.Helper()
		if !errors.Is(err, k) {
			t.Fatalf("want %v, got %v", k, err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	in := image.Image{ID: id.UUID(), Name: "snap", DiskFormat: "raw", ContainerFormat: "bare", Visibility: "private", MinDisk: 2, MinRAM: 64, Tags: []string{"t"},
		Properties: map[string]string{"image_type": "snapshot", "instance_uuid": "i1"}}
	first, err := s.Create(ctx, me, in)
	must(err)
	if first.Status != image.Queued || first.Size != -1 || first.Owner != "p1" || first.Created.IsZero() {
		t.Fatalf("%+v", first)
	}
	again, err := s.Create(ctx, me, in)
	must(err)
	if d := cmp.Diff(first, again); d != "" {
		t.Fatalf("a repeated create gives something else: %s", d)
	}
	_, err = s.Create(ctx, other, in)
	want(err, fault.Conflict)
	_, _, err = s.Download(ctx, me, in.ID)
	want(err, fault.Conflict)
	data := random(5 << 20)
	must(s.Upload(ctx, me, in.ID, bytes.NewReader(data), int64(len(data))))
	want(s.Upload(ctx, me, in.ID, bytes.NewReader(data), int64(len(data))), fault.Conflict)
	img, r, err := s.Download(ctx, me, in.ID)
	must(err)
	got, err := io.ReadAll(r)
	must(err)
	must(r.Close())
	if !bytes.Equal(got, data) || img.Status != image.Active || img.Size != int64(len(data)) || img.HashAlgo != "sha512" {
		t.Fatalf("%d bytes of %+v", len(got), img)
	}
	next := *img
	next.Name, next.Tags, next.MinRAM, next.Protected = "renamed", []string{"u", "v"}, 128, true
	next.Properties = map[string]string{"a/b~": "c", "instance_uuid": "i2"}
	up, err := s.Update(ctx, me, next)
	must(err)
	if up.Name != "renamed" || up.MinRAM != 128 || !up.Protected || cmp.Diff(next.Properties, up.Properties) != "" || cmp.Diff(next.Tags, up.Tags) != "" {
		t.Fatalf("%+v", up)
	}
	list, err := s.List(ctx, me, map[string]string{"instance_uuid": "i2"})
	must(err)
	if len(list) != 1 || list[0].ID != in.ID {
		t.Fatalf("%+v", list)
	}
	want(s.Delete(ctx, me, in.ID), fault.Forbidden)
	_, err = s.Get(ctx, other, in.ID)
	want(err, fault.NotFound)
	want(s.Delete(ctx, other, in.ID), fault.NotFound)
	pub := *up
	pub.Visibility = "public"
	_, err = s.Update(ctx, me, pub)
	want(err, fault.Forbidden)
	_, err = s.Update(ctx, admin, pub)
	must(err)
	_, err = s.Get(ctx, other, in.ID)
	must(err)
	pub.Name = "mine now"
	_, err = s.Update(ctx, other, pub)
	want(err, fault.Forbidden)
	pub.Name, pub.Protected = "renamed", false
	_, err = s.Update(ctx, admin, pub)
	must(err)
	must(s.Delete(ctx, me, in.ID))
	_, err = s.Get(ctx, me, in.ID)
	want(err, fault.NotFound)
	bad, err := s.Create(ctx, me, image.Image{Name: "liar", DiskFormat: "qcow2", ContainerFormat: "bare"})
	must(err)
	err = s.Upload(ctx, me, bad.ID, strings.NewReader("not a qcow2"), -1)
	want(err, fault.Invalid)
	if !strings.Contains(fault.PublicText(err), "disk_format says qcow2") {
		t.Fatal(err)
	}
	must(s.Upload(ctx, me, mustImage(t, s, me).ID, strings.NewReader(""), 0))
}

func mustImage(t *testing.T, s image.Service, c *auth.Caller) *image.Image {
	t.Helper()
	img, err := s.Create(t.Context(), c, image.Image{Name: "empty", DiskFormat: "raw", ContainerFormat: "bare"})
	if err != nil {
		t.Fatal(err)
	}
	return img
}
