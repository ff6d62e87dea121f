locals {
  objects = "projects/_/buckets/${google_storage_bucket.lake.name}/objects"

  # What each role reads and lists, and what it writes. The producer is not here: it sees no bucket.
  reads = {
    batch       = ["raw/batch/", "processed/"]
    streaming   = ["raw/streaming/", "processed/"]
    reader      = ["processed/"]
    maintenance = ["processed/"]
  }
  writes = {
    batch       = ["raw/batch/", "processed/"]
    streaming   = ["raw/streaming/", "processed/"]
    maintenance = ["processed/"]
  }
}

resource "google_service_account" "role" {
  for_each = toset(["producer", "batch", "streaming", "reader", "maintenance"])

  account_id   = "${var.name}-${each.value}"
  display_name = "Cauce: ${each.value}"
}

resource "google_service_account_iam_member" "impersonators" {
  for_each = { for p in setproduct(keys(google_service_account.role), var.impersonators) : "${p[0]} ${p[1]}" => p }

  service_account_id = google_service_account.role[each.value[0]].name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = each.value[1]
}

# Google's ready-made roles that create objects either read nothing or may delete.
resource "google_project_iam_custom_role" "read" {
  role_id     = "${replace(var.name, "-", "_")}_read"
  title       = "Cauce: read and list objects"
  permissions = ["storage.buckets.get", "storage.objects.get", "storage.objects.list"]
}

resource "google_project_iam_custom_role" "create" {
  role_id     = "${replace(var.name, "-", "_")}_create"
  title       = "Cauce: create objects"
  permissions = ["storage.objects.create", "storage.multipartUploads.create", "storage.multipartUploads.abort", "storage.multipartUploads.listParts"]
}

# To replace an object needs the right to delete it. Only the name of the newest checkpoint is replaced, and hints of epochs.
resource "google_project_iam_custom_role" "replace" {
  role_id     = "${replace(var.name, "-", "_")}_replace"
  title       = "Cauce: replace objects"
  permissions = ["storage.objects.delete"]
}

# A listing is asked of the bucket, and its condition is about the prefix that is listed.
resource "google_storage_bucket_iam_member" "read" {
  for_each = local.reads

  bucket = google_storage_bucket.lake.name
  role   = google_project_iam_custom_role.read.id
  member = google_service_account.role[each.key].member

  condition {
    title = "folders"
    expression = join(" || ", concat(
      [for p in each.value : "resource.name.startsWith('${local.objects}/${p}')"],
      [for p in each.value : "(resource.type == 'storage.googleapis.com/Bucket' && api.getAttribute('storage.googleapis.com/objectListPrefix', '').startsWith('${p}'))"],
    ))
  }
}

resource "google_storage_bucket_iam_member" "create" {
  for_each = local.writes

  bucket = google_storage_bucket.lake.name
  role   = google_project_iam_custom_role.create.id
  member = google_service_account.role[each.key].member

  condition {
    title      = "folders"
    expression = join(" || ", [for p in each.value : "resource.name.startsWith('${local.objects}/${p}')"])
  }
}

resource "google_storage_bucket_iam_member" "replace" {
  for_each = toset(["batch", "streaming"])

  bucket = google_storage_bucket.lake.name
  role   = google_project_iam_custom_role.replace.id
  member = google_service_account.role[each.value].member

  condition {
    title      = "pointers"
    expression = "resource.name.startsWith('${local.objects}/processed/') && resource.name.endsWith('/_delta_log/_last_checkpoint')"
  }
}

# The only one that may delete.
resource "google_storage_bucket_iam_member" "delete" {
  bucket = google_storage_bucket.lake.name
  role   = google_project_iam_custom_role.replace.id
  member = google_service_account.role["maintenance"].member

  condition {
    title      = "tables"
    expression = "resource.name.startsWith('${local.objects}/processed/')"
  }
}
