data "google_storage_project_service_account" "storage" {
}

resource "google_kms_key_ring" "lake" {
  name     = var.name
  location = var.region
}

resource "google_kms_crypto_key" "lake" {
  name            = var.name
  key_ring        = google_kms_key_ring.lake.id
  rotation_period = "7776000s"

  lifecycle {
    prevent_destroy = true
  }
}

# The service encrypts and decrypts on behalf of whoever may reach an object.
resource "google_kms_crypto_key_iam_member" "storage" {
  crypto_key_id = google_kms_crypto_key.lake.id
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = "serviceAccount:${data.google_storage_project_service_account.storage.email_address}"
}

resource "google_storage_bucket" "lake" {
  #checkov:skip=CKV_GCP_62:access logs need a second bucket; audit logs of data access tell the same
  name                        = var.bucket
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  depends_on                  = [google_kms_crypto_key_iam_member.storage]

  versioning {
    enabled = true
  }

  encryption {
    default_kms_key_name = google_kms_crypto_key.lake.id
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }

    condition {
      days_since_noncurrent_time = var.old_version_days
      send_age_if_zero           = false
    }
  }

  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }

    condition {
      age = 1
    }
  }

  dynamic "lifecycle_rule" {
    for_each = var.streaming_days > 0 ? [var.streaming_days] : []

    content {
      action {
        type = "Delete"
      }

      condition {
        age            = lifecycle_rule.value
        matches_prefix = ["raw/streaming/"]
      }
    }
  }
}

# Consoles show these folders before anything is in them; Cauce passes over them.
resource "google_storage_bucket_object" "folder" {
  for_each = toset(concat(["raw/batch/", "raw/streaming/"], [for t in var.tables : "processed/${t}/"]))

  bucket  = google_storage_bucket.lake.name
  name    = each.value
  content = " "
}
