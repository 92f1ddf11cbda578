"""A digital head phantom: synthetic multi-modal brain MRI with lesions, made without any download."""
