package configdrive

import (
	"fmt"
	"slices"
	"strings"

	"kilonova/internal/compute/metadata"
	"kilonova/internal/fault"
)

// node is a file or directory of a drive.
type node struct {
	name   string
	dir    bool
	data   []byte
	kids   []*node // sorted by name
	parent *node   // the root's is itself

	short  string // name in the format's own, poorer alphabet
	extent uint32 // first block of a file's data or of a directory
	joliet uint32 // first block of a directory's second form
	size   uint32 // bytes of a directory in the form that is being written
	number int    // in the path table that is being written
}

const maxName = 100 // bytes; both formats can hold it

// tree sorts files into directories. It fails for a path that is file and directory at once or that stands twice.
func tree(files []metadata.File) (*node, error) {
	root := &node{dir: true}
	root.parent = root
	for _, f := range files {
		at := root
		parts := strings.Split(f.Path, "/")
		for i, p := range parts {
			if p == "" || p == "." || p == ".." || len(p) > maxName || strings.ContainsRune(p, 0) {
				return nil, fault.New(fault.Invalid, "A config drive can not have the path %.200q.", f.Path)
			}
			last := i == len(parts)-1
			j, found := slices.BinarySearchFunc(at.kids, p, func(n *node, name string) int { return strings.Compare(n.name, name) })
			if found && (last || !at.kids[j].dir) {
				return nil, fault.New(fault.Invalid, "The path %.200q stands twice on a config drive.", f.Path)
			}
			if !found {
				n := &node{name: p, dir: !last, parent: at}
				if last {
					n.data = f.Data
				}
				at.kids = slices.Insert(at.kids, j, n)
			}
			at = at.kids[j]
		}
	}
	return root, nil
}

// directories lists the directories breadth first, as path tables want them.
func (n *node) directories() []*node {
	list := []*node{n}
	for i := 0; i < len(list); i++ {
		for _, k := range list[i].kids {
			if k.dir {
				list = append(list, k)
			}
		}
	}
	return list
}

// shorten gives every node below n a name in capitals, digits and underscores, unique in its directory. base and ext are the
// longest parts that the format takes.
func (n *node) shorten(base, ext int) {
	used := map[string]bool{}
	for _, k := range n.kids {
		name, suffix, _ := strings.Cut(k.name, ".")
		if k.dir {
			name, suffix = k.name, ""
		}
		b, e := plain(name, base), plain(suffix, ext)
		full := b + "." + e
		for i := 1; used[full]; i++ {
			tail := fmt.Sprintf("_%d", i)
			full = b[:min(len(b), base-len(tail))] + tail + "." + e
		}
		used[full] = true
		k.short = full
		if k.dir {
			k.short = strings.TrimSuffix(full, ".")
			k.shorten(base, ext)
		}
	}
}

func plain(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_':
			return r
		}
		return '_'
	}, s)
	return s[:min(len(s), n)]
}
