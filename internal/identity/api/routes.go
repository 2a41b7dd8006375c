package api

import (
	"net/http"

	"kilonova/internal/httpapi"
	"kilonova/internal/identity/local"
)

const (
	get    = http.MethodGet
	head   = http.MethodHead
	post   = http.MethodPost
	put    = http.MethodPut
	patch  = http.MethodPatch
	remove = http.MethodDelete
)

// crud are the five routes of a noun. schemas is the name of its schema file.
func crud[T any, P local.Noun[T]](a *api, x *resource[T, P], schemas string) []httpapi.Route {
	return []httpapi.Route{
		{Method: get, Path: x.path, Handle: x.handleList},
		{Method: post, Path: x.path, Schema: a.schema(schemas + ".create"), Handle: x.handleCreate},
		{Method: get, Path: x.path + "/{id}", Handle: x.handleShow},
		{Method: patch, Path: x.path + "/{id}", Schema: a.schema(schemas + ".update"), Handle: x.handleUpdate},
		{Method: remove, Path: x.path + "/{id}", Handle: x.handleDelete},
	}
}

// without leaves the routes of one method and path out, for nouns that do that one differently.
func without(list []httpapi.Route, method, path string) []httpapi.Route {
	var out []httpapi.Route
	for _, rt := range list {
		if rt.Method != method || rt.Path != path {
			out = append(out, rt)
		}
	}
	return out
}

// routes is the table of the service.
func (a *api) routes() []httpapi.Route {
	out := []httpapi.Route{
		{Method: get, Path: "/", Public: true, Handle: root},
		{Method: get, Path: "/v3", Public: true, Handle: v3},

		{Method: post, Path: "/v3/auth/tokens", Public: true, Schema: a.schema("auth.token"), Handle: a.createToken},
		{Method: get, Path: "/v3/auth/tokens", Handle: a.showToken},
		{Method: remove, Path: "/v3/auth/tokens", Handle: a.revokeToken},
		{Method: get, Path: "/v3/auth/catalog", Rule: "identity:get_auth_catalog", Handle: a.authCatalog},
		{Method: get, Path: "/v3/auth/projects", Rule: "identity:get_auth_projects", Handle: a.authProjects},
		{Method: get, Path: "/v3/auth/domains", Rule: "identity:get_auth_domains", Handle: a.authDomains},
		{Method: get, Path: "/v3/auth/system", Rule: "identity:get_auth_system", Handle: a.authSystem},

		{Method: get, Path: "/v3/projects/{id}", Handle: a.showProject},
		{Method: get, Path: "/v3/projects/{id}/tags", Handle: a.tagged(nil, tagList)},
		{Method: put, Path: "/v3/projects/{id}/tags", Schema: a.schema("project.tags"), Handle: a.tagged(putTags, tagList)},
		{Method: remove, Path: "/v3/projects/{id}/tags", Handle: a.tagged(removeTags, nothing)},
		{Method: get, Path: "/v3/projects/{id}/tags/{tag}", Handle: a.tagged(nil, tagExists)},
		{Method: put, Path: "/v3/projects/{id}/tags/{tag}", Handle: a.tagged(addTag, created)},
		{Method: remove, Path: "/v3/projects/{id}/tags/{tag}", Handle: a.tagged(removeTag, nothing)},

		{Method: patch, Path: "/v3/users/{id}", Schema: a.schema("user.update"), Handle: a.updateUser},
		{Method: post, Path: "/v3/users/{id}/password", Public: true, Schema: a.schema("user.password"), Handle: a.changePassword},
		{Method: get, Path: "/v3/users/{id}/groups", Handle: a.userGroups},
		{Method: get, Path: "/v3/users/{id}/projects", Handle: a.userProjects},
		{Method: get, Path: "/v3/groups/{id}/users", Handle: a.groupUsers},
		{Method: put, Path: "/v3/groups/{id}/users/{user}", Handle: a.membership("identity:add_user_to_group", addMember)},
		{Method: remove, Path: "/v3/groups/{id}/users/{user}", Handle: a.membership("identity:remove_user_from_group", removeMember)},
		{Method: get, Path: "/v3/groups/{id}/users/{user}", Handle: a.membership("identity:check_user_in_group", checkMember)},
		{Method: head, Path: "/v3/groups/{id}/users/{user}", Handle: a.membership("identity:check_user_in_group", checkMember)},

		{Method: get, Path: "/v3/role_assignments", Handle: a.roleAssignments},
		{Method: get, Path: "/v3/role_inferences", Handle: a.listInferences},
		{Method: get, Path: "/v3/roles/{id}/implies", Handle: a.listImplied},
		{Method: get, Path: "/v3/roles/{id}/implies/{implied}", Handle: a.showImplied},
		{Method: head, Path: "/v3/roles/{id}/implies/{implied}", Handle: a.checkImplied},
		{Method: put, Path: "/v3/roles/{id}/implies/{implied}", Handle: a.createImplied},
		{Method: remove, Path: "/v3/roles/{id}/implies/{implied}", Handle: a.deleteImplied},

		{Method: put, Path: "/v3/regions/{id}", Body: httpapi.OptionalJSON, Handle: a.putRegion},

		{Method: get, Path: "/v3/users/{id}/application_credentials", Handle: a.listAppCreds},
		{Method: get, Path: "/v3/users/{id}/application_credentials/{cred}", Handle: a.showAppCred},
		{Method: get, Path: "/v3/users/{id}/access_rules", Handle: a.listAccessRules},
		{Method: get, Path: "/v3/users/{id}/access_rules/{rule}", Handle: a.accessRule},
		{Method: remove, Path: "/v3/users/{id}/access_rules/{rule}", Handle: a.accessRule},

		{Method: get, Path: "/v3/limits/model", Rule: "identity:get_limit_model", Handle: limitModel},
		{Method: post, Path: "/v3/limits", Schema: a.schema("limit.create"), Handle: a.createLimits},
		{Method: post, Path: "/v3/registered_limits", Schema: a.schema("registered_limit.create"), Handle: createMany(a.registeredLimits)},

		{Method: get, Path: "/v3/OS-TRUST/trusts", Handle: a.listTrusts},
		{Method: post, Path: "/v3/OS-TRUST/trusts", Schema: a.schema("trust.create"), Handle: a.createTrust},
		{Method: get, Path: "/v3/OS-TRUST/trusts/{id}", Handle: a.showTrust},
		{Method: remove, Path: "/v3/OS-TRUST/trusts/{id}", Handle: a.deleteTrust},
		{Method: get, Path: "/v3/OS-TRUST/trusts/{id}/roles", Handle: a.trustRoles},
		{Method: get, Path: "/v3/OS-TRUST/trusts/{id}/roles/{role}", Handle: a.trustRoles},

		{Method: get, Path: "/v3/domains/{id}/{rest...}", Handle: a.domainConfig},
		{Method: put, Path: "/v3/domains/{id}/{rest...}", Body: httpapi.JSONBody, Handle: a.domainConfig},
		{Method: patch, Path: "/v3/domains/{id}/{rest...}", Handle: a.domainConfig},
		{Method: remove, Path: "/v3/domains/{id}/{rest...}", Handle: a.domainConfig},
	}
	out = append(out, a.endpointFilterRoutes()...)
	out = append(out, a.guarded(a.secretRoutes())...)
	out = append(out, a.grantRoutes()...)
	out = append(out, without(crud(a, a.projects, "project"), get, "/v3/projects/{id}")...)
	out = append(out, crud(a, a.domains, "domain")...)
	out = append(out, without(crud(a, a.users, "user"), patch, "/v3/users/{id}")...)
	out = append(out, crud(a, a.groups, "group")...)
	out = append(out, crud(a, a.roles, "role")...)
	out = append(out, crud(a, a.regions, "region")...)
	out = append(out, crud(a, a.services, "service")...)
	out = append(out, without(crud(a, a.endpoints, "endpoint"), patch, "/v3/endpoints/{id}")...)
	out = append(out, httpapi.Route{Method: patch, Path: "/v3/endpoints/{id}", Schema: a.schema("endpoint.update"), Handle: a.updateEndpoint})
	out = append(out, crud(a, a.policies, "policy")...)
	out = append(out, without(crud(a, a.registeredLimits, "registered_limit"), post, "/v3/registered_limits")...)
	out = append(out, without(crud(a, a.limits, "limit"), post, "/v3/limits")...)
	out = append(out, crud(a, a.endpointGroups, "endpoint_group")...)
	return append(out, a.consumerRoutes()...)
}

// secretRoutes are those that show or make lasting secrets of users.
func (a *api) secretRoutes() []httpapi.Route {
	return append(crud(a, a.credentials, "credential"), []httpapi.Route{
		{Method: get, Path: "/v3/users/{id}/credentials/OS-EC2", Handle: a.listEC2},
		{Method: post, Path: "/v3/users/{id}/credentials/OS-EC2", Schema: a.schema("credential.ec2"), Handle: a.createEC2},
		{Method: get, Path: "/v3/users/{id}/credentials/OS-EC2/{access}", Handle: a.showEC2},
		{Method: remove, Path: "/v3/users/{id}/credentials/OS-EC2/{access}", Handle: a.deleteEC2},
		{Method: post, Path: "/v3/users/{id}/application_credentials", Schema: a.schema("appcred.create"), Handle: a.createAppCred},
		{Method: remove, Path: "/v3/users/{id}/application_credentials/{cred}", Handle: a.deleteAppCred},
	}...)
}

// consumerRoutes are those of OAuth 1.0a consumers, whose secret is shown once.
func (a *api) consumerRoutes() []httpapi.Route {
	out := without(crud(a, a.consumers, "consumer"), post, a.consumers.path)
	return append(out, httpapi.Route{Method: post, Path: a.consumers.path, Schema: a.schema("consumer.create"), Handle: a.createConsumer})
}

func (a *api) endpointFilterRoutes() []httpapi.Route {
	const (
		root     = "/v3/OS-EP-FILTER"
		endpoint = root + "/projects/{project}/endpoints/{object}"
		group    = root + "/endpoint_groups/{object}/projects/{project}"
	)
	return []httpapi.Route{
		{Method: put, Path: endpoint, Handle: picked(a.s.PickEndpoint)},
		{Method: remove, Path: endpoint, Handle: picked(a.s.Unpick)},
		{Method: get, Path: endpoint, Handle: picked(a.s.Picked)},
		{Method: head, Path: endpoint, Handle: picked(a.s.Picked)},
		{Method: get, Path: root + "/projects/{project}/endpoints", Handle: a.projectEndpoints},
		{Method: get, Path: root + "/projects/{project}/endpoint_groups", Handle: a.projectGroups},
		{Method: get, Path: root + "/endpoints/{object}/projects", Handle: a.pickedBy},
		{Method: put, Path: group, Handle: picked(a.s.PickGroup)},
		{Method: remove, Path: group, Handle: picked(a.s.Unpick)},
		{Method: get, Path: group, Handle: a.showPickedGroup},
		{Method: head, Path: group, Handle: a.showPickedGroup},
		{Method: get, Path: root + "/endpoint_groups/{object}/projects", Handle: a.pickedBy},
		{Method: get, Path: root + "/endpoint_groups/{object}/endpoints", Handle: a.groupEndpoints},
	}
}
