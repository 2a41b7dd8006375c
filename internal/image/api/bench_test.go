package api_test

import (
	"bytes"
	"fmt"
	"testing"
)

// BenchmarkList lists 1,000 images in one page.
func BenchmarkList(b *testing.B) {
	c := start(b, nil)
	for i := range 1000 {
		c.create("p1", map[string]any{"name": fmt.Sprintf("image-%d", i), "os_distro": "debian", "tags": []string{"a", "b"}})
	}
	for b.Loop() {
		c.want(200, c.do("p1", "GET", "/v2/images?limit=1000", nil))
	}
}

// BenchmarkShow shows one image.
func BenchmarkShow(b *testing.B) {
	c := start(b, nil)
	id, _ := c.create("p1", nil)["id"].(string)
	for b.Loop() {
		c.want(200, c.do("p1", "GET", "/v2/images/"+id, nil))
	}
}

// BenchmarkUpload sends 64 MiB, hashes and inspects included.
func BenchmarkUpload(b *testing.B) {
	c := start(b, nil)
	data := random(64 << 20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		id, _ := c.create("p1", nil)["id"].(string)
		c.want(204, c.do("p1", "PUT", "/v2/images/"+id+"/file", bytes.NewReader(data)))
		c.want(204, c.do("p1", "DELETE", "/v2/images/"+id, nil))
	}
}

// BenchmarkDownload reads 64 MiB, checked against their hash.
func BenchmarkDownload(b *testing.B) {
	c := start(b, nil)
	data := random(64 << 20)
	id := c.active("p1", nil, data)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if a := c.do("p1", "GET", "/v2/images/"+id+"/file", nil); len(a.body) != len(data) {
			b.Fatal(len(a.body))
		}
	}
}
