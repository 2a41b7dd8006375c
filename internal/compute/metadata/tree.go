package metadata

import (
	"slices"
	"strconv"
	"strings"
)

// PasswordPath is the last part of the path of the password file.
const PasswordPath = "password"

// split normalises a path: doubled, leading and trailing slashes do not count.
func split(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// isPassword tells whether a path is the password file of a version that has one.
func isPassword(parts []string) bool {
	return len(parts) == 3 && parts[0] == "openstack" && parts[2] == PasswordPath && isVersion(parts[1], OpenStackVersions()) && atLeast(parts[1], grizzly)
}

func isVersion(s string, known []string) bool { return s == latest || slices.Contains(known, s) }

// Get gives what the metadata service has under a path: the bytes and their media type. ok is false for an unknown path. The
// password file is not content: Handler serves it.
func (c *Content) Get(path string) (body []byte, kind string, ok bool) {
	parts := split(path)
	if len(parts) > 0 && parts[0] == "openstack" {
		return c.getOpenStack(parts[1:])
	}
	if len(parts) > 0 && parts[0] == "ec2" {
		parts = parts[1:]
	}
	text, ok := c.getEC2(parts)
	return []byte(text), kindText, ok
}

func (c *Content) getOpenStack(parts []string) ([]byte, string, bool) {
	if len(parts) == 0 {
		return []byte(strings.Join(append(OpenStackVersions(), latest), "\n")), kindText, true
	}
	if parts[0] == contentDir {
		return c.getFile(parts[1:])
	}
	version := parts[0]
	if !isVersion(version, OpenStackVersions()) || len(parts) > 2 {
		return nil, "", false
	}
	docs := c.openStack(version, false)
	if len(parts) == 1 {
		names := make([]string, 0, len(docs)+1)
		for _, d := range docs {
			if d.name == "vendor_data.json" {
				names = append(names, PasswordPath) // where the field has it
			}
			names = append(names, d.name)
		}
		if version == grizzly {
			names = append(names, PasswordPath)
		}
		return []byte(strings.Join(names, "\n")), kindText, true
	}
	for _, d := range docs {
		if d.name == parts[1] {
			return d.data, d.kind, true
		}
	}
	return nil, "", false
}

func (c *Content) getFile(parts []string) ([]byte, string, bool) {
	if len(parts) != 1 {
		return nil, "", false
	}
	i, err := strconv.Atoi(parts[0])
	if err != nil || i < 0 || i >= len(c.files) || contentName(i) != parts[0] {
		return nil, "", false
	}
	return c.files[i].data, kindRaw, true
}

func (c *Content) getEC2(parts []string) (string, bool) {
	if len(parts) == 0 {
		return strings.Join(append(EC2Versions(), latest), "\n"), true
	}
	if !isVersion(parts[0], EC2Versions()) {
		return "", false
	}
	dir := map[string]any{"meta-data": c.ec2(parts[0])}
	if c.userData != nil {
		dir["user-data"] = string(c.userData)
	}
	var at any = dir
	for _, p := range parts[1:] {
		m, ok := at.(map[string]any)
		if !ok || p == nameKey {
			return "", false
		}
		if at, ok = m[p]; !ok {
			return "", false
		}
	}
	return leaf(at), true
}

// File is one file of a config drive.
type File struct {
	Path string // relative, with slashes
	Data []byte
}

// DriveFiles lists the files of a config drive, sorted by path: the EC2 tree of its last version, the OpenStack tree of every
// version, and the injected files.
func (c *Content) DriveFiles() []File {
	var out []File
	for _, v := range []string{"2009-04-04", latest} {
		out = append(out, File{"ec2/" + v + "/meta-data.json", encode(c.ec2(v))})
		if c.userData != nil {
			out = append(out, File{"ec2/" + v + "/user-data", c.userData})
		}
	}
	for _, v := range append(OpenStackVersions(), latest) {
		for _, d := range c.openStack(v, true) {
			out = append(out, File{"openstack/" + v + "/" + d.name, d.data})
		}
	}
	for i, f := range c.files {
		out = append(out, File{"openstack/" + contentDir + "/" + contentName(i), f.data})
	}
	slices.SortFunc(out, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return out
}
