package api

import "kilonova/internal/policy"

// The checks that most rules share: the owner's project at a role, or an administrator.
const (
	asMember = "role:admin or (role:member and project_id:%(project_id)s)"
	asReader = "role:admin or (role:reader and project_id:%(project_id)s)"
	sight    = "(project_id:%(project_id)s or project_id:%(member_id)s or 'community':%(visibility)s or 'public':%(visibility)s or 'shared':%(visibility)s)"
)

// DefaultRules are the policy rules of the image service with the defaults of the field.
func DefaultRules() []policy.Rule {
	rules := []policy.Rule{
		{Name: "default", Check: "role:admin", Description: "Rules that are defined nowhere."},
		{Name: "context_is_admin", Check: "role:admin", Description: "Who counts as an administrator."},
		{Name: "add_image", Check: "role:admin or (role:member and project_id:%(project_id)s and project_id:%(owner)s)", Description: "Create an image."},
		{Name: "delete_image", Check: asMember, Description: "Delete an image."},
		{Name: "get_image", Check: "role:admin or (role:reader and " + sight + ")", Description: "Show an image."},
		{Name: "get_images", Check: asReader, Description: "List images."},
		{Name: "modify_image", Check: asMember, Description: "Change an image."},
		{Name: "publicize_image", Check: "role:admin", Description: "Make an image public."},
		{Name: "communitize_image", Check: asMember, Description: "Make an image a community image."},
		{Name: "download_image", Check: "role:admin or (role:member and " + sight + ")", Description: "Read the data of an image."},
		{Name: "upload_image", Check: asMember, Description: "Write the data of an image."},
		{Name: "delete_image_location", Check: "role:admin", Description: "Take a copy of an image out of a store."},
		{Name: "get_image_location", Check: asReader, Description: "See where the data of an image lies."},
		{Name: "set_image_location", Check: asMember, Description: "Say where the data of an image lies."},
		{Name: "add_image_location", Check: "role:admin or (role:member and project_id:%(project_id)s)", Description: "Give an image its location."},
		{Name: "fetch_image_location", Check: "role:service or role:admin", Description: "List the locations of an image."},
		{Name: "add_member", Check: asMember, Description: "Share an image with a project."},
		{Name: "delete_member", Check: asMember, Description: "End the sharing of an image."},
		{Name: "get_member", Check: "role:admin or role:reader and (project_id:%(project_id)s or project_id:%(member_id)s)", Description: "Show a member."},
		{Name: "get_members", Check: "role:admin or role:reader and (project_id:%(project_id)s or project_id:%(member_id)s)", Description: "List members."},
		{Name: "modify_member", Check: "role:admin or (role:member and project_id:%(member_id)s)", Description: "Accept or reject a shared image."},
		{Name: "deactivate", Check: asMember, Description: "Forbid downloads of an image."},
		{Name: "reactivate", Check: asMember, Description: "Allow downloads again."},
		{Name: "copy_image", Check: "role:admin", Description: "Copy an image into further stores."},
		{Name: "tasks_api_access", Check: "role:admin", Description: "Use the task routes."},
		{Name: "get_task", Check: "rule:tasks_api_access", Description: "Show a task."},
		{Name: "get_tasks", Check: "rule:tasks_api_access", Description: "List tasks."},
		{Name: "add_task", Check: "rule:tasks_api_access", Description: "Create a task."},
		{Name: "stores_info_detail", Check: "role:admin", Description: "See the configuration of stores."},
	}
	read := "role:admin or (role:reader and (project_id:%(project_id)s or 'public':%(visibility)s))"
	rules = append(rules, policy.Rule{Name: "metadef_default", Check: "", Description: "Metadata definitions, for all."},
		policy.Rule{Name: "metadef_admin", Check: "role:admin", Description: "Metadata definitions, for administrators."})
	for _, r := range []struct{ name, text string }{
		{"get_metadef_namespace", "Show a metadata namespace."}, {"get_metadef_namespaces", "List metadata namespaces."},
		{"get_metadef_object", "Show a metadata object."}, {"get_metadef_objects", "List metadata objects."},
		{"list_metadef_resource_types", "List resource types."}, {"get_metadef_resource_type", "List the resource types of a namespace."},
		{"get_metadef_property", "Show a metadata property."}, {"get_metadef_properties", "List metadata properties."},
		{"get_metadef_tag", "Show a metadata tag."}, {"get_metadef_tags", "List metadata tags."},
	} {
		check := read
		if r.name == "list_metadef_resource_types" || r.name == "get_metadef_namespaces" {
			check = "role:admin or role:reader"
		}
		rules = append(rules, policy.Rule{Name: r.name, Check: check, Description: r.text})
	}
	for _, r := range []struct{ name, text string }{
		{"modify_metadef_namespace", "Change a metadata namespace."}, {"add_metadef_namespace", "Create a metadata namespace."},
		{"delete_metadef_namespace", "Delete a metadata namespace."}, {"modify_metadef_object", "Change a metadata object."},
		{"add_metadef_object", "Create a metadata object."}, {"delete_metadef_object", "Delete a metadata object."},
		{"add_metadef_resource_type_association", "Associate a resource type."}, {"remove_metadef_resource_type_association", "End an association."},
		{"modify_metadef_property", "Change a metadata property."}, {"add_metadef_property", "Create a metadata property."},
		{"remove_metadef_property", "Delete a metadata property."}, {"add_metadef_tag", "Create a metadata tag."},
		{"add_metadef_tags", "Create metadata tags."}, {"modify_metadef_tag", "Change a metadata tag."},
		{"delete_metadef_tag", "Delete a metadata tag."}, {"delete_metadef_tags", "Delete all metadata tags."},
	} {
		rules = append(rules, policy.Rule{Name: r.name, Check: "rule:metadef_admin", Description: r.text})
	}
	return rules
}
